package mount

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"testing"

	"evernode/hotpocket/statefs"
)

var ctx = context.Background()

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

// each runs a test in every kind of writable folder that there is: the real one,
// and those over the plain tree, where only the mount itself can be wrong.
func each(t *testing.T, fn func(t *testing.T, dir string)) {
	t.Run("volume", func(t *testing.T) { inVolume(t, fn) })
	t.Run("plain", func(t *testing.T) {
		_, dir := mountTree(t, newPlainTree(t), true)
		fn(t, dir)
	})
	t.Run("served", func(t *testing.T) {
		p := newPlainTree(t)
		p.serve.Store(true)
		_, dir := mountTree(t, p, true)
		fn(t, dir)
	})
}

// inVolume runs a test in the real kind alone.
func inVolume(t *testing.T, fn func(t *testing.T, dir string)) {
	t.Helper()
	s := openState(t, t.TempDir())
	r, err := s.Begin(ctx, 1)
	must(t, err)
	t.Cleanup(func() { must(t, r.Rollback(ctx)) })
	fn(t, r.Dir())
}

func config(dir string) statefs.Config {
	return statefs.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

// openState opens a state for the time of a test.
func openState(t testing.TB, dir string) *State {
	t.Helper()
	needMount(t)
	s, err := Open(ctx, config(dir))
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// Package npmtest gives tests the unmodified npm packages that existing users
// and contracts are written with. A package is installed once per machine, into
// the user's cache folder, at an exact version; a test on a machine without
// Node.js, npm or a registry is skipped with the reason.
package npmtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The packages that tests use.
const (
	Client   = "hotpocket-js-client@0.5.7"
	Contract = "hotpocket-nodejs-contract@0.7.4"
)

// Install returns a folder whose node_modules holds a package, named with its
// version, and what it depends on.
func Install(t testing.TB, pkg string) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "evernode-test", pkg)
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	// Installed beside and renamed, so that a test that is killed leaves nothing
	// half-installed.
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "install")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "install", "--prefix", fresh, "--no-audit", "--no-fund", "--ignore-scripts", pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s cannot be installed: %v\n%s", pkg, err, out)
	}
	if err := os.Rename(fresh, dir); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	return dir
}

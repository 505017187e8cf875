package devkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evernode/hotpocket/config"
)

const (
	overrideFile = "hp.cfg.override"
	disparateDir = "disparate"
)

// bundle is a folder with a contract as a developer deploys it: what becomes
// the contract's state, and two things that do not: hp.cfg.override, laid over
// the nodes' configuration, and disparate/<i>/, the private files of node i
// (spec/hotpocket.md section 7.1).
type bundle struct {
	dir       string
	override  []byte      // nil when there is none
	disparate map[int]int // unused nodes' folders are told to the developer
}

// openBundle checks that dir can be deployed.
func openBundle(dir string) (*bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the folder %s to deploy is not there; build the contract first, or make a new one with: evernode dev new", dir)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is a file; deploy the folder that holds the contract", dir)
	}
	b := &bundle{dir: dir, disparate: map[int]int{}}
	b.override, err = os.ReadFile(filepath.Join(dir, overrideFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, disparateDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < 1 || !e.IsDir() {
			return nil, fmt.Errorf("%s: the folders in %s are named after nodes: 1, 2, …",
				filepath.Join(dir, disparateDir, e.Name()), disparateDir)
		}
		b.disparate[n] = n
	}
	return b, nil
}

// unknown lists the fields of the override that no configuration has, as the
// mistakes in writing that they mostly are. A new configuration of the given
// node shows which fields there are.
func (b *bundle) unknown(node config.Node) []string {
	var given, known map[string]any
	if json.Unmarshal(b.override, &given) != nil || json.Unmarshal(config.New(node.PrivateKey, "").Text(), &known) != nil {
		return nil
	}
	return unknownFields("", given, known)
}

func unknownFields(prefix string, given, known map[string]any) []string {
	var list []string
	for name, value := range given {
		path := prefix + name
		standard, ok := known[name]
		switch {
		case !ok:
			list = append(list, path)
		case path != "contract.environment": // its names are the contract's own
			g, isObject := value.(map[string]any)
			k, shouldBe := standard.(map[string]any)
			if isObject && shouldBe {
				list = append(list, unknownFields(path+".", g, k)...)
			}
		}
	}
	slices.Sort(list)
	return list
}

// checkProgram checks that the program which a configuration names will be
// there when a node runs the contract.
func (b *bundle) checkProgram(cfg *config.Config) error {
	path := cfg.Contract.BinPath
	if !cfg.Contract.Execute {
		return nil
	}
	if path == "" || path == config.BinPathPlaceholder {
		return fmt.Errorf(`nothing says which program the contract is; put it into %s, for example {"contract":{"bin_path":"/usr/bin/node","bin_args":"index.js"}}`,
			filepath.Join(b.dir, overrideFile))
	}
	file := path
	if !filepath.IsAbs(path) {
		file = filepath.Join(b.dir, path)
	}
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.IsAbs(path):
		return fmt.Errorf("contract.bin_path is %s, which is not on this machine; install it, or change %s", path, overrideFile)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("contract.bin_path is %s, but %s is not there; build the contract into the folder that you deploy, or change %s",
			path, file, overrideFile)
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("contract.bin_path is %s, which is a folder; name a program", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("contract.bin_path is %s, but the file may not be executed; run: chmod +x %s", path, file)
	}
	return nil
}

// install puts the bundle into the folder of node i, which holds no contract.
func (b *bundle) install(l config.Layout, i int) error {
	skip := func(rel string) bool { return rel == overrideFile || rel == disparateDir }
	if err := copyTree(b.dir, l.SeedState(), skip); err != nil {
		return fmt.Errorf("copy the contract to node %d: %w", i, err)
	}
	if _, ok := b.disparate[i]; ok {
		private := filepath.Join(b.dir, disparateDir, strconv.Itoa(i))
		if err := copyTree(private, l.Seed(), func(rel string) bool { return rel == "state" }); err != nil {
			return fmt.Errorf("copy the private files of node %d: %w", i, err)
		}
	}
	return nil
}

// copyTree copies what is in src to dst with its permissions, links as links.
func copyTree(src, dst string, skip func(rel string) bool) error {
	type dir struct {
		path string
		mode fs.FileMode
	}
	var dirs []dir
	err := filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if rel == "." {
			return os.MkdirAll(dst, 0o755)
		}
		if skip(rel) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(dst, rel)
		switch {
		case e.IsDir():
			// Writable while it is filled; its own mode comes last.
			dirs = append(dirs, dir{target, info.Mode().Perm()})
			return os.MkdirAll(target, 0o755)
		case e.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(to, target)
		case e.Type().IsRegular():
			return copyFile(path, target, info.Mode().Perm())
		default:
			return fmt.Errorf("%s is neither a file, a folder nor a link; take it out of the contract's folder", path)
		}
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Chmod(dirs[i].path, dirs[i].mode); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(src, dst string, mode fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	// The state's modes are agreed on, so the umask must not change them.
	if err := out.Chmod(mode); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// wipe removes from a node's folder everything but who the node is and its
// logs: the contract's files, the ledgers, and what it remembers of consensus
// on them.
func wipe(l config.Layout) error {
	entries, err := os.ReadDir(string(l))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "cfg" || e.Name() == "log" {
			continue
		}
		if err := removeTree(filepath.Join(string(l), e.Name())); err != nil {
			return err
		}
	}
	for _, dir := range []string{l.SeedState(), l.LedgerFS()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes a tree even where a contract took the write permission
// from its folders.
func removeTree(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("%w; if the contract ran as another user, remove it as that user or as root", err)
	}
	return nil
}

// overlaps reports whether one folder lies in the other.
func overlaps(a, b string) bool {
	real := func(p string) string {
		if r, err := filepath.EvalSymlinks(p); err == nil {
			return r
		}
		return strings.TrimSuffix(p, "/")
	}
	a, b = real(a), real(b)
	return below(a, b) || below(b, a)
}

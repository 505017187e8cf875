package devkit

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed templates
var templateFiles embed.FS

// Template is a contract project to begin with.
type Template struct {
	Name  string
	About string
	Needs string // what has to be installed to build it
	Next  string // the commands to go on with, from within the project

	module bool // a Go module that uses the packages of this one
}

// Templates lists the templates there are.
func Templates() []Template {
	return []Template{
		{
			Name:   "go-starter",
			About:  "a contract in Go that keeps a text, and a client",
			Needs:  "go and make",
			Next:   "make deploy",
			module: true,
		},
		{
			Name:  "nodejs-starter",
			About: "a contract in JavaScript that keeps a text, and a client",
			Needs: "node and npm",
			Next:  "npm install --prefix contract && evernode dev deploy contract",
		},
		{
			Name:  "c-starter",
			About: "a contract in C that keeps a text, in one static program",
			Needs: "a C compiler and make",
			Next:  "make deploy",
		},
	}
}

// projectName is what a project may be called: the name goes into file names,
// a Go module and an npm package.
var projectName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// NewProject makes the project folder name in the folder parent. source is the
// checkout of this module's source for templates in Go; "" looks for one around
// this program and the current folder.
func NewProject(template, name, parent, source string) (t Template, dir string, err error) {
	found := false
	for _, t = range Templates() {
		if found = t.Name == template; found {
			break
		}
	}
	if !found {
		return t, "", fmt.Errorf("there is no template %q; evernode dev list shows those there are", template)
	}
	if !projectName.MatchString(name) {
		return t, "", fmt.Errorf("%q cannot be a project's name; use a small letter and then small letters, digits, _ and -", name)
	}
	values := []string{"_projname_", name, "_node_", nodeProgram()}
	if t.module {
		if source, err = sourceDir(source); err != nil {
			return t, "", err
		}
	}
	dir = filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return t, "", fmt.Errorf("%s is there already; choose another name or remove it", dir)
		}
		return t, "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if err := writeTemplate(path.Join("templates", template), dir, strings.NewReplacer(values...)); err != nil {
		return t, "", err
	}
	if t.module {
		if err := writeModule(dir, name, source); err != nil {
			return t, "", err
		}
	}
	return t, dir, nil
}

func writeTemplate(from, dir string, values *strings.Replacer) error {
	return fs.WalkDir(templateFiles, from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(name, from), "/")
		// Go sources have another suffix here so that they are no part of this
		// module.
		target := filepath.Join(dir, strings.TrimSuffix(values.Replace(rel), ".tmpl"))
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		text, err := templateFiles.ReadFile(name)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		return os.WriteFile(target, []byte(values.Replace(string(text))), mode)
	})
}

// nodeProgram is where node is on this machine, which contracts in JavaScript
// must name with its whole path.
func nodeProgram() string {
	if p, err := exec.LookPath("node"); err == nil {
		return p
	}
	return "/usr/bin/node"
}

// modulePath is the module path of this source.
const modulePath = "evernode"

// sourceDir finds the checkout of this module's source. The module is not
// published, so a Go project can use its packages only from there.
func sourceDir(named string) (string, error) {
	if named != "" {
		dir, err := filepath.Abs(named)
		if err != nil {
			return "", err
		}
		if !isSource(dir) {
			return "", fmt.Errorf("%s does not hold the source of evernode (no go.mod of module %s)", dir, modulePath)
		}
		return dir, nil
	}
	var starts []string
	if self, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(self))
	}
	if here, err := os.Getwd(); err == nil {
		starts = append(starts, here)
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			if isSource(dir) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("a project in Go uses packages from evernode's source, which is neither around this program nor here; name a checkout with --source DIR")
}

func isSource(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && bytes.HasPrefix(text, []byte("module "+modulePath+"\n"))
}

// writeModule writes go.mod and go.sum of a project that uses the source's
// packages: the source's own, so that nothing needs to be looked up, with the
// source as one more requirement.
func writeModule(dir, name, source string) error {
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(source, "go.sum"))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(mod), "\n")
	text := fmt.Sprintf("module %s\n%s\nrequire %s v0.0.0\n\nreplace %s => %s\n", name, rest, modulePath, modulePath, quoteModPath(source))
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644)
}

// quoteModPath writes a path as go.mod wants it.
func quoteModPath(p string) string {
	if strings.ContainsAny(p, " \t\"'`,()[]{}") {
		return fmt.Sprintf("%q", p)
	}
	return p
}

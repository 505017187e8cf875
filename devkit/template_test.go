package devkit

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"evernode/hotpocket/config"
)

// The source that the templates in Go use is the one under test.
const source = ".."

func TestProjectsBuild(t *testing.T) {
	for _, tt := range []struct {
		template string
		tools    []string
		build    []string
		bundle   string
	}{
		{"go-starter", []string{"go", "make"}, []string{"make", "build"}, "dist"},
		{"c-starter", []string{"cc", "make"}, []string{"make", "CFLAGS=-O1 -Wall -Wextra -Werror"}, "dist"},
		// What npm installs is the business of tests that run contracts.
		{"nodejs-starter", []string{"node"}, []string{"sh", "-c", "node --check contract/index.js && node --check client/client.js"}, "contract"},
	} {
		t.Run(tt.template, func(t *testing.T) {
			for _, tool := range tt.tools {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skipf("%s is not installed", tool)
				}
			}
			_, dir, err := NewProject(tt.template, "my-thing_2", t.TempDir(), source)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tt.build[0], tt.build[1:]...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", tt.build, err, out)
			}
			if tt.template == "go-starter" {
				vet := exec.Command("go", "vet", "./...")
				vet.Dir = dir
				if out, err := vet.CombinedOutput(); err != nil {
					t.Errorf("go vet: %v\n%s", err, out)
				}
			}
			b, err := openBundle(filepath.Join(dir, tt.bundle))
			if err != nil {
				t.Fatal(err)
			}
			cfg := config.New(privateForTest(t), "id")
			if cfg, err = cfg.Override(b.override); err != nil {
				t.Fatal(err)
			}
			if err := b.checkProgram(cfg); err != nil {
				t.Error(err)
			}
			err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() || strings.HasPrefix(path, filepath.Join(dir, "dist")+"/") {
					return err
				}
				text, err := os.ReadFile(path)
				for _, mark := range []string{"_projname_", "_node_", "_sdk_", ".tmpl"} {
					if strings.Contains(path+string(text), mark) {
						t.Errorf("%s still holds %s", path, mark)
					}
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEveryTemplateIsListed(t *testing.T) {
	entries, err := templateFiles.ReadDir("templates")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(Templates()) {
		t.Errorf("%d templates are listed, %d are there", len(Templates()), len(entries))
	}
	for _, tmpl := range Templates() {
		if _, err := templateFiles.ReadFile("templates/" + tmpl.Name + "/README.md"); err != nil {
			t.Error(err)
		}
	}
}

func TestNewProjectRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ template, name, source, want string }{
		{"cobol", "x", "", "dev list"},
		{"c-starter", "", "", "project's name"},
		{"c-starter", "../x", "", "project's name"},
		{"c-starter", "My", "", "project's name"},
		{"go-starter", "x", dir, "does not hold the source"},
	} {
		if _, _, err := NewProject(tt.template, tt.name, dir, tt.source); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: %v", tt.template, tt.name, err)
		}
	}
	if _, _, err := NewProject("c-starter", "twice", dir, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := NewProject("c-starter", "twice", dir, ""); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over an existing folder: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("refused projects left files: %v", entries)
	}
}

// The header of the C template is the one of the example, which is tested
// there.
func TestHeaderOfTheCTemplateIsTheExamples(t *testing.T) {
	want, err := os.ReadFile("../examples/echo-c/contract.h")
	if err != nil {
		t.Fatal(err)
	}
	got, err := templateFiles.ReadFile("templates/c-starter/contract/contract.h")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("they differ; copy examples/echo-c/contract.h to devkit/templates/c-starter/contract")
	}
}

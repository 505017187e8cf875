package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// privateMode is the mode of files that hold a private key. The original uses
// 0644 for hp.cfg and so shows the node's key to every user of the machine.
const privateMode = 0o600

// Load reads and checks the hp.cfg of a node's folder.
func Load(dir string) (*Config, error) {
	path := Layout(dir).ConfigFile()
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a node's folder: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Save checks c and writes it as the hp.cfg of a node's folder, so that a
// crash leaves the old file or the new one.
func (c *Config) Save(dir string) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("configuration not saved: %w", err)
	}
	return WriteFile(Layout(dir).ConfigFile(), c.Text(), privateMode)
}

// KeepCopy copies the hp.cfg of a node's folder, byte for byte, to hp.cfg.SUFFIX
// beside it, in the place of an older copy, and returns the copy's path. Its mode
// is 0600, for it holds the private key.
func KeepCopy(dir, suffix string) (path string, err error) {
	path = copyName(dir, suffix)
	text, err := readFile(Layout(dir).ConfigFile())
	if err == nil {
		err = WriteFile(path, text, privateMode)
	}
	if err != nil {
		return "", fmt.Errorf("keep hp.cfg as %s: %w", filepath.Base(path), err)
	}
	return path, nil
}

func copyName(dir, suffix string) string { return Layout(dir).ConfigFile() + "." + suffix }

// readFile reads a file of at most MaxFileSize bytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxFileSize {
		return nil, fmt.Errorf("%s has more than the allowed %d bytes", path, MaxFileSize)
	}
	return text, nil
}

// WriteFile replaces a file as a whole: data goes to a temporary file beside
// it, to the disk, and then takes its name. The owner of a file that was there
// stays its owner when the caller may see to that.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if info, statErr := os.Stat(path); statErr == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
			if err := tmp.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return fmt.Errorf("keep the owner of %s: %w", path, err)
			}
		}
	}
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

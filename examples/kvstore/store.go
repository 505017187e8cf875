package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxKey   = 80 // bytes; escaped it must fit into a file name
	maxValue = 4 << 20
)

// store keeps each value in a file of its own, so that a change touches little
// of the state that nodes hash and send each other. The files are spread over
// 256 folders by a hash of the key. Changes stay in memory until flush.
type store struct {
	dir      string
	readOnly bool
	changed  map[string]*string // nil is a deleted key
}

func newStore(dir string, readOnly bool) *store {
	return &store{dir: dir, readOnly: readOnly, changed: map[string]*string{}}
}

func (s *store) set(key, value string) error {
	if err := s.writable(key); err != nil {
		return err
	}
	if len(value) > maxValue {
		return fmt.Errorf("a value has at most %d bytes", maxValue)
	}
	s.changed[key] = &value
	return nil
}

func (s *store) del(key string) error {
	if err := s.writable(key); err != nil {
		return err
	}
	if _, err := s.get(key); err != nil {
		return err
	}
	s.changed[key] = nil
	return nil
}

func (s *store) get(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	if v, ok := s.changed[key]; ok {
		if v == nil {
			return "", errNotFound
		}
		return *v, nil
	}
	b, err := os.ReadFile(s.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNotFound
	}
	return string(b), err
}

// keys lists the keys that begin with prefix, sorted bytewise.
func (s *store) keys(prefix string) ([]string, error) {
	list := []string{}
	add := func(key string) {
		if strings.HasPrefix(key, prefix) {
			list = append(list, key)
		}
	}
	folders, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join(s.dir, folder.Name()))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			key, err := unescape(f.Name())
			if err != nil {
				return nil, err
			}
			if _, ok := s.changed[key]; !ok {
				add(key)
			}
		}
	}
	for key, v := range s.changed {
		if v != nil {
			add(key)
		}
	}
	slices.Sort(list)
	return list, nil
}

// flush writes the changes.
func (s *store) flush() error {
	for key, v := range s.changed {
		path := s.path(key)
		if v == nil {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		err := os.WriteFile(path, []byte(*v), 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			err = os.WriteFile(path, []byte(*v), 0o644)
		}
		if err != nil {
			return err
		}
	}
	clear(s.changed)
	return nil
}

func (s *store) writable(key string) error {
	if s.readOnly {
		return errors.New("a read request cannot change the store")
	}
	return checkKey(key)
}

func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("a key has 1 to %d bytes", maxKey)
	}
	return nil
}

func (s *store) path(key string) string {
	h := fnv.New32a()
	h.Write([]byte(key))
	return filepath.Join(s.dir, fmt.Sprintf("%02x", h.Sum32()&0xff), escape(key))
}

// escape makes a file name of a key: letters, digits, '-' and '_' stay, other
// bytes become '%' and two hex digits.
func escape(key string) string {
	const hex = "0123456789abcdef"
	b := make([]byte, 0, len(key))
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func unescape(name string) (string, error) {
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b = append(b, name[i])
			continue
		}
		var c byte
		if len(name)-i < 3 {
			return "", fmt.Errorf("the store holds a file that is not its own: %q", name)
		}
		if _, err := fmt.Sscanf(name[i+1:i+3], "%02x", &c); err != nil {
			return "", fmt.Errorf("the store holds a file that is not its own: %q", name)
		}
		b = append(b, c)
		i += 2
	}
	return string(b), nil
}

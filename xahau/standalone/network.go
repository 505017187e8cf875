package standalone

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// networkFile keeps what a folder's ledgers do not say themselves.
const networkFile = "network.json"

type networkRecord struct {
	NetworkID uint32 `json:"network_id"`
}

// networkOf gives the network id of a folder, and notes it in a new one.
func networkOf(cfg Config) (uint32, error) {
	want := cfg.NetworkID
	if want == 0 {
		want = DefaultNetworkID
	}
	if cfg.Dir == "" {
		return want, nil
	}
	path := filepath.Join(cfg.Dir, networkFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return want, writeNetwork(path, networkRecord{want})
	}
	if err != nil {
		return 0, fmt.Errorf("network of the ledgers: %w", err)
	}
	var r networkRecord
	if err := json.Unmarshal(b, &r); err != nil || r.NetworkID == 0 {
		return 0, fmt.Errorf("network of the ledgers: %s is damaged; write {\"network_id\": N} into it", path)
	}
	if cfg.NetworkID != 0 && cfg.NetworkID != r.NetworkID {
		return 0, fmt.Errorf("the ledgers in %s are those of network %d, not %d", cfg.Dir, r.NetworkID, cfg.NetworkID)
	}
	return r.NetworkID, nil
}

func writeNetwork(path string, r networkRecord) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("network of the ledgers: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), networkFile)
	if err != nil {
		return fmt.Errorf("network of the ledgers: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("network of the ledgers: %w", err)
	}
	return nil
}

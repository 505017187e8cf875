package devkit

import (
	"bytes"
	"strings"
	"testing"

	"evernode/hotpocket/control"
)

func TestStatusShowsWhatIsFetched(t *testing.T) {
	nodes := []NodeStatus{
		{Node: 1, Running: true, VoteStatus: "synced", member: true},
		{Node: 2, Running: true, VoteStatus: "desync", Sync: &control.Sync{What: "state", Here: 312e6, Total: 1e9, Rate: 95e6, Left: 8, Peers: 3}},
	}
	var b bytes.Buffer
	if err := WriteTable(&b, nodes); err != nil {
		t.Fatal(err)
	}
	want := "Node 2 is fetching state: 312 MB of 1.0 GB (31 %), 95 MB/s, 8s left, from 3 peers\n"
	if out := b.String(); !strings.HasSuffix(out, want) || strings.Contains(out, "Node 1 is") {
		t.Errorf("table:\n%s", out)
	}
	b.Reset()
	if err := WriteJSON(&b, nodes); err != nil {
		t.Fatal(err)
	}
	if out := b.String(); strings.Count(out, `"sync"`) != 1 || !strings.Contains(out, `"seconds_left": 8`) {
		t.Errorf("JSON:\n%s", out)
	}
}

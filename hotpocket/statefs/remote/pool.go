package remote

import "sync"

// Requests that carry a file's data come in buffers that are used again: they
// are large, and the state does not keep them.

const (
	// pooledFrom and pooledTo are the sizes of bodies that get such a buffer, in
	// bytes.
	pooledFrom = 32 << 10
	pooledTo   = 2<<20 + 64<<10
)

var buffers = sync.Pool{New: func() any { b := make([]byte, pooledTo); return &b }}

func carriesData(o op) bool { return o == opPutFile || o == opPut || o == opPutRun }

// place finds room for the body of a request.
func place(_ uint32, kind uint8, n int) []byte {
	if !carriesData(op(kind)) || n < pooledFrom || n > pooledTo {
		return nil
	}
	return (*buffers.Get().(*[]byte))[:n]
}

// giveBack returns what place gave.
func giveBack(body []byte) {
	if cap(body) == pooledTo {
		body = body[:pooledTo]
		buffers.Put(&body)
	}
}

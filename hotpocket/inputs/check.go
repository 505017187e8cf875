package inputs

import (
	"errors"
	"sync"
	"sync/atomic"

	"evernode/hotpocket/key"
)

// checkChunk is how many signatures are verified in one batch. Larger batches
// gain next to nothing, and smaller ones spread more evenly over the workers.
const checkChunk = 128

// ErrBadSignature is the error of an item whose user's signature is wrong; its
// reason is BadSignature. Any other error of an item is BadFormat.
var ErrBadSignature = errors.New("user's signature is wrong")

// Check parses the containers and verifies the signatures of submissions, in
// batches, over up to workers goroutines, all of which have ended when it
// returns; with 1 or less it starts none. It returns one input for each item, and
// an error for each item, or nil instead of a list of errors when all are good.
// The input of a bad item is empty. keys makes users who come again cheaper; it
// may be nil.
func Check(items []Submission, workers int, keys *key.Cache) (parsed []Input, errs []error) {
	parsed = make([]Input, len(items))
	chunks := (len(items) + checkChunk - 1) / checkChunk
	// Each chunk writes its own slot; a nil slot means that all is well.
	bad := make([][]error, chunks)
	do := func(c int) {
		from := c * checkChunk
		to := min(from+checkChunk, len(items))
		bad[c] = checkBatch(items[from:to], parsed[from:to], keys)
	}
	if workers = min(workers, chunks); workers <= 1 {
		for c := range chunks {
			do(c)
		}
	} else {
		var (
			next atomic.Int64
			wg   sync.WaitGroup
		)
		for range workers {
			wg.Go(func() {
				for c := int(next.Add(1)) - 1; c < chunks; c = int(next.Add(1)) - 1 {
					do(c)
				}
			})
		}
		wg.Wait()
	}
	for c, b := range bad {
		if b == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(items))
		}
		copy(errs[c*checkChunk:], b)
	}
	return parsed, errs
}

// checkBatch checks one batch and returns nil when all items are good.
func checkBatch(items []Submission, parsed []Input, keys *key.Cache) []error {
	var errs []error
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(items))
		}
		errs[i] = err
	}
	for i := range items {
		in, err := items[i].Input()
		if err != nil {
			fail(i, err)
		}
		parsed[i] = in
	}
	var good []bool
	if len(items) == 1 {
		s := &items[0]
		good = []bool{s.User.Verify(s.Container, s.Sig[:])}
	} else {
		batch := keys.NewBatch(len(items))
		for i := range items {
			batch.Add(items[i].User, items[i].Container, items[i].Sig[:])
		}
		good = batch.Verify()
	}
	for i, ok := range good {
		if ok {
			continue
		}
		parsed[i] = Input{}
		if errs == nil || errs[i] == nil {
			fail(i, ErrBadSignature)
		}
	}
	return errs
}

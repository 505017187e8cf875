package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"evernode/hotpocket/config"
	"evernode/hotpocket/key"
)

// floor is what this machine does at best for the parts that any design has to
// pay for: a connection, a signature, the disk, the contract's process. It is
// measured between the samples of the real thing, so that both meet the same
// machine.
type floor struct {
	contract string
	payload  []byte
	in       *os.File // what the contract maps
	disk     *os.File // filled with zeros, as a journal's segment
	off      int64
	key      key.Private
	sig      key.Signature
	ln       net.Listener
	conn     *socket
	served   chan struct{}
}

const floorDisk = 4 << 20

func newFloor(ctx context.Context, dir, contract, nodeDir string) (f *floor, err error) {
	f = &floor{contract: contract, payload: []byte(strings.Repeat("x", payloadSize)), served: make(chan struct{})}
	defer func() {
		if err != nil {
			f.close()
			err = fmt.Errorf("set up the floor: %w", err)
		}
	}()
	if f.in, err = os.Create(filepath.Join(dir, "floor.in")); err != nil {
		return f, err
	}
	if _, err = f.in.Write(f.payload); err != nil {
		return f, err
	}
	if f.disk, err = os.Create(filepath.Join(dir, "floor.disk")); err != nil {
		return f, err
	}
	if _, err = f.disk.Write(make([]byte, floorDisk)); err != nil {
		return f, err
	}
	if err = f.disk.Sync(); err != nil {
		return f, err
	}
	if f.key, err = key.Generate(); err != nil {
		return f, err
	}
	f.sig = f.key.Sign(f.payload)
	l := config.Layout(nodeDir)
	cert, err := tls.LoadX509KeyPair(l.TLSCert(), l.TLSKey())
	if err != nil {
		return f, err
	}
	if f.ln, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}}); err != nil {
		return f, err
	}
	go f.serve()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", f.ln.Addr().String())
	if err != nil {
		return f, err
	}
	f.conn = &socket{conn: conn.(*tls.Conn)}
	return f, nil
}

func (f *floor) close() {
	if f.conn != nil {
		f.conn.conn.Close()
	}
	if f.ln != nil {
		f.ln.Close()
		<-f.served
	}
	for _, file := range []*os.File{f.in, f.disk} {
		if file != nil {
			file.Close()
		}
	}
}

// serve echoes frames of a fixed size, each after the work that an input costs
// at the least: its signature, two writes that have to be on disk one after the
// other (one for each of the two ledgers), and the contract.
func (f *floor) serve() {
	defer close(f.served)
	conn, err := f.ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	b := make([]byte, floorFrame)
	for {
		if _, err := io.ReadFull(conn, b); err != nil {
			return
		}
		if f.work() != nil {
			return // the other side sees the connection end
		}
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}

// floorFrame is about the length of an input's message.
const floorFrame = 320

func (f *floor) work() error {
	if !f.key.Public().Verify(f.payload, f.sig[:]) {
		return errors.New("floor: signature is wrong")
	}
	if err := f.sync(); err != nil {
		return err
	}
	if _, err := f.run(); err != nil {
		return err
	}
	return f.sync()
}

func (f *floor) sync() error {
	f.off = (f.off + 4096) % floorDisk
	if _, err := f.disk.WriteAt(f.payload, f.off); err != nil {
		return err
	}
	return unix.Fdatasync(int(f.disk.Fd()))
}

// input measures one input at the floor.
func (f *floor) input() (time.Duration, error) {
	start := time.Now()
	b := make([]byte, floorFrame)
	if _, err := f.conn.conn.Write(b); err != nil {
		return 0, fmt.Errorf("floor: %w", err)
	}
	if _, err := io.ReadFull(f.conn.conn, b); err != nil {
		return 0, fmt.Errorf("floor: %w", err)
	}
	return time.Since(start), nil
}

// run measures the contract by itself: started with one input in a file, its
// output read from a pipe.
func (f *floor) run() (time.Duration, error) {
	start := time.Now()
	out, theirs, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer out.Close()
	who := f.key.Public().String()
	cmd := exec.Command(f.contract)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"public_key":%q,"readonly":true,"control_fd":-1,"user_in_fd":3,"users":{%q:[4,[0,%d]]},"unl":{}}`, who, who, len(f.payload)))
	cmd.ExtraFiles = []*os.File{f.in, theirs}
	if err := cmd.Start(); err != nil {
		theirs.Close()
		return 0, fmt.Errorf("floor: start the contract: %w", err)
	}
	theirs.Close()
	answer, err := io.ReadAll(out)
	if e := cmd.Wait(); err == nil {
		err = e
	}
	elapsed := time.Since(start)
	if err == nil && (len(answer) != 4+len(f.payload) || binary.BigEndian.Uint32(answer) != uint32(len(f.payload))) {
		err = fmt.Errorf("the contract answered %d bytes", len(answer))
	}
	if err != nil {
		return 0, fmt.Errorf("floor: run the contract: %w", err)
	}
	return elapsed, nil
}

// verifyRate measures how many signatures of inputs the machine verifies per
// second in batches, on all processors at once.
func verifyRate() (float64, error) {
	const batch = 128
	msg := []byte(strings.Repeat("x", payloadSize+40))
	keys, sigs := make([]key.Public, batch), make([]key.Signature, batch)
	for i := range keys {
		k, err := key.Generate()
		if err != nil {
			return 0, err
		}
		keys[i], sigs[i] = k.Public(), k.Sign(msg)
	}
	start := time.Now()
	counts := make([]int, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range counts {
		wg.Go(func() {
			for time.Since(start) < time.Second {
				b := key.NewBatch(batch)
				for j := range batch {
					b.Add(keys[j], msg, sigs[j][:])
				}
				b.Verify()
				counts[i] += batch
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(start).Seconds(), nil
}

package contract

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// libuv's loop as it lies in the memory of a 64-bit process; its layout is part
// of the interface that libuv 1 keeps stable. Queues are two pointers, which
// point at the queue itself when it is empty.
const (
	loopActiveHandles = 8   // uint32
	loopActiveReqs    = 32  // uint32
	loopBackendFD     = 64  // int32, the epoll descriptor
	loopPendingQueue  = 72  // queue
	loopWatcherQueue  = 88  // queue
	loopSize          = 104 // as far as it matters here
)

// maxLoopSearch bounds the memory that is searched for a loop.
const maxLoopSearch = 16 << 20

// findLoop finds the address of the loop whose epoll descriptor is epfd among the
// static variables of the program and its libraries, 0 if there is none. While
// the main thread waits in it, its two queues are empty, which makes four
// pointers to known places: nothing else looks like that.
func findLoop(pid int, proc string, epfd int) uintptr {
	if strconv.IntSize != 64 {
		return 0
	}
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		return 0
	}
	var fileEnd uint64 // where the last mapping of a file, or what follows it at once, ends
	left := uint64(maxLoopSearch)
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		first, last, ok := strings.Cut(f[0], "-")
		begin, err1 := strconv.ParseUint(first, 16, 64)
		end, err2 := strconv.ParseUint(last, 16, 64)
		if !ok || err1 != nil || err2 != nil || end < begin {
			continue
		}
		// Static variables lie in a file's writable part and, those that begin as
		// zero, right behind it.
		static := f[4] != "0" || begin == fileEnd && len(f) == 5
		if static {
			fileEnd = end
		}
		if !static || !strings.HasPrefix(f[1], "rw") || end-begin > left {
			continue
		}
		left -= end - begin
		mem := make([]byte, end-begin)
		n := readMemory(pid, uintptr(begin), mem)
		for off := 0; off+loopSize <= n; off += 8 {
			if isLoop(mem[off:off+loopSize], begin+uint64(off), epfd) {
				return uintptr(begin) + uintptr(off)
			}
		}
	}
	return 0
}

func isLoop(b []byte, at uint64, epfd int) bool {
	if int32(binary.NativeEndian.Uint32(b[loopBackendFD:])) != int32(epfd) {
		return false
	}
	for _, q := range []uint64{loopPendingQueue, loopWatcherQueue} {
		if binary.NativeEndian.Uint64(b[q:]) != at+q || binary.NativeEndian.Uint64(b[q+8:]) != at+q {
			return false
		}
	}
	return true
}

// loopOnlyReads reports whether nothing keeps the loop running but one request.
func loopOnlyReads(pid int, loop uintptr, epfd int) bool {
	var b [loopSize]byte
	return readMemory(pid, loop, b[:]) == len(b) && isLoop(b[:], uint64(loop), epfd) &&
		binary.NativeEndian.Uint32(b[loopActiveHandles:]) == 0 &&
		binary.NativeEndian.Uint32(b[loopActiveReqs:]) == 1
}

// readMemory reads another process's memory and returns how much it got.
func readMemory(pid int, at uintptr, b []byte) int {
	if len(b) == 0 {
		return 0
	}
	local := []unix.Iovec{{Base: unsafe.SliceData(b)}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: at, Len: len(b)}}, 0)
	if err != nil {
		return 0
	}
	return n
}

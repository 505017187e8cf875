package contract

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// limitFromInside makes a traced process that is stopped set a limit of its own.
// Lowering one's own limits is allowed to everybody, while those of a process of
// another user may be set only with CAP_SYS_RESOURCE, which a node in a container
// mostly lacks. The process is made to execute one system call where it stands,
// and finds everything as before.
func limitFromInside(pid, resource int, value uint64) (err error) {
	var saved unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &saved); err != nil {
		return err
	}
	call := []byte{0x0f, 0x05} // syscall
	limit := binary.LittleEndian.AppendUint64(nil, value)
	limit = binary.LittleEndian.AppendUint64(limit, value)
	code := uintptr(saved.Rip)
	data := (uintptr(saved.Rsp) - 512) &^ 15 // below the stack, out of anybody's use

	oldCode, oldData := make([]byte, len(call)), make([]byte, len(limit))
	if _, err := unix.PtracePeekText(pid, code, oldCode); err != nil {
		return err
	}
	if _, err := unix.PtracePeekData(pid, data, oldData); err != nil {
		return err
	}
	defer func() {
		for _, restore := range []func() error{
			func() error { _, err := unix.PtracePokeText(pid, code, oldCode); return err },
			func() error { _, err := unix.PtracePokeData(pid, data, oldData); return err },
			func() error { return unix.PtraceSetRegs(pid, &saved) },
		} {
			if e := restore(); e != nil && err == nil {
				err = e
			}
		}
	}()
	if _, err := unix.PtracePokeText(pid, code, call); err != nil {
		return err
	}
	if _, err := unix.PtracePokeData(pid, data, limit); err != nil {
		return err
	}
	regs := saved
	regs.Orig_rax = ^uint64(0) // it is in no system call that could be restarted
	regs.Rax, regs.Rdi, regs.Rsi, regs.Rdx, regs.R10 = unix.SYS_PRLIMIT64, 0, uint64(resource), uint64(data), 0
	if err := unix.PtraceSetRegs(pid, &regs); err != nil {
		return err
	}
	if err := unix.PtraceSingleStep(pid); err != nil {
		return err
	}
	status, err := wait(pid, nil)
	if err != nil {
		return err
	}
	if !status.Stopped() || status.StopSignal() != unix.SIGTRAP {
		return fmt.Errorf("the process did not stop after the call (status %#x)", uint32(status))
	}
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	if e := int64(regs.Rax); e < 0 {
		return unix.Errno(-e)
	}
	return nil
}

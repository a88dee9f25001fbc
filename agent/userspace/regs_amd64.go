package userspace

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the engine knows about amd64: registers, the system call instruction,
// the jump, and how interrupted system calls are restarted.

const (
	supported = true
	arch      = "amd64"
)

// callInsn is the instruction that enters the kernel.
const callInsn = "\x0f\x05"

const (
	jumpOpcode   = 0xe9
	userCode64   = 0x33 // code segment of 64-bit user code
	rseqCSOffset = 8    // of the pointer to the critical section in struct rseq
)

// A signal frame is known by the word in which the kernel keeps the segment
// registers of the interrupted 64-bit code; the stack pointer stands in front.
const (
	frameMark = 0x2b<<48 | userCode64
	frameSP   = 3 // words
)

// registers are a stopped thread's.
type registers struct{ unix.PtraceRegs }

func (r *registers) pc() uint64 { return r.Rip }
func (r *registers) sp() uint64 { return r.Rsp }

// wide reports whether the thread runs 64-bit code.
func (r *registers) wide() bool { return r.Cs == userCode64 }

// call sets r up to run the call instruction at gadget.
func (r *registers) call(gadget uint64, nr uint64, args [6]uint64) {
	r.Rip = gadget
	r.Rax = nr
	r.Orig_rax = ^uint64(0) // the kernel must not restart an interrupted call now
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = args[0], args[1], args[2], args[3], args[4], args[5]
}

// result is what a system call returned.
func (r *registers) result() int64 { return int64(r.Rax) }

// restarts are the system calls that the kernel ends with EINTR when a thread
// is stopped, although no signal was delivered, and that may simply be called
// again with the same arguments: they have done nothing yet. Those of sockets
// end so when the socket has a timeout, which then begins anew.
var restarts = [...]uint64{
	unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2,
	unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_RT_SIGTIMEDWAIT,
	unix.SYS_READ, unix.SYS_READV, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG,
	unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG,
	unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT,
	unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS, unix.SYS_IO_URING_ENTER,
}

// interrupted reports whether the stop broke a system call off in a way that
// the program would see.
func (r *registers) interrupted() bool {
	if int64(r.Rax) != -int64(unix.EINTR) {
		return false
	}
	for _, nr := range restarts {
		if r.Orig_rax == nr {
			return true
		}
	}
	return false
}

// restart makes the thread enter the broken-off system call again.
func (r *registers) restart() {
	r.Rax = r.Orig_rax
	r.Rip -= uint64(len(callInsn))
}

func getRegisters(tid int, r *registers) unix.Errno {
	return ptrace(unix.PTRACE_GETREGS, tid, 0, unsafe.Pointer(&r.PtraceRegs))
}

func setRegisters(tid int, r *registers) unix.Errno {
	return ptrace(unix.PTRACE_SETREGS, tid, 0, unsafe.Pointer(&r.PtraceRegs))
}

// encodeJump returns the jump that lies at from and leads to to.
func encodeJump(from, to uint64) (j jump, ok bool) {
	distance := int64(to - (from + uint64(len(j))))
	if distance != int64(int32(distance)) {
		return j, false
	}
	j[0] = jumpOpcode
	binary.LittleEndian.PutUint32(j[1:], uint32(distance))
	return j, true
}

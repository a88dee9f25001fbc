//go:build !amd64

package userspace

import "golang.org/x/sys/unix"

// Another architecture needs its own registers, jump and restart rules, as in
// regs_amd64.go. Until it has them, every call reports ErrUnsupported before
// any of these is reached.

const (
	supported    = false
	arch         = ""
	callInsn     = "\x00"
	rseqCSOffset = 8
	frameMark    = 0
	frameSP      = 1
)

type registers struct{}

func (r *registers) pc() uint64                        { return 0 }
func (r *registers) sp() uint64                        { return 0 }
func (r *registers) wide() bool                        { return false }
func (r *registers) call(uint64, uint64, [6]uint64)    {}
func (r *registers) result() int64                     { return -int64(unix.ENOSYS) }
func (r *registers) interrupted() bool                 { return false }
func (r *registers) restart()                          {}
func getRegisters(int, *registers) unix.Errno          { return unix.ENOSYS }
func setRegisters(int, *registers) unix.Errno          { return unix.ENOSYS }
func encodeJump(uint64, uint64) (j jump, reached bool) { return j, false }

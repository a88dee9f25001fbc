package main

import (
	"errors"
	"slices"

	"livemend.dev/livemend/agent/kernel"
)

// kinds returns the names of all errors that err is.
func kinds(err error) []string {
	var list []string
	for name, one := range named {
		if errors.Is(err, one) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// named are the errors that tests ask for, by name.
var named = map[string]error{
	"module": kernel.ErrModule, "disabled": kernel.ErrDisabled, "unsupported": kernel.ErrUnsupported, "other kernel": kernel.ErrOtherKernel,
	"no checksums": kernel.ErrNoChecksums, "lockdown": kernel.ErrLockdown, "signature": kernel.ErrSignature, "modules off": kernel.ErrModulesOff,
	"name taken": kernel.ErrNameTaken, "dependency": kernel.ErrDependency, "reboot needed": kernel.ErrRebootNeeded, "busy": kernel.ErrBusy,
	"symbol": kernel.ErrSymbol, "unresolved": kernel.ErrUnresolved, "malformed": kernel.ErrMalformed, "checksums": kernel.ErrChecksums,
	"magic": kernel.ErrMagic, "layout": kernel.ErrLayout, "refused": kernel.ErrRefused, "in use": kernel.ErrInUse, "permission": kernel.ErrPermission,
	"oops": kernel.ErrOops, "hung": kernel.ErrHung, "stalled": kernel.ErrStalled, "kept": kernel.ErrKept, "stuck": kernel.ErrStuck,
	"forced": kernel.ErrForced, "halted": kernel.ErrHalted, "quarantine": kernel.ErrQuarantine,
}

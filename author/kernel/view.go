package kernel

import (
	"fmt"
	"strings"

	"livemend.dev/livemend/author/object"
)

// A kernel object holds more than code and data: tables that describe places in
// its functions. Some travel with the functions they describe, others are made
// anew for the patch, and some mean nothing to a patch.

// carried are the tables that travel: name, and the relocations of one entry, the
// first of which is the place that it describes. The length of an entry is told
// by where these are.
var carried = map[string]int{
	"__bug_table":                            2,
	"__ex_table":                             2,
	"__jump_table":                           3,
	".altinstructions":                       2,
	".smp_locks":                             1,
	".parainstructions":                      1,
	"__mcount_loc":                           1,
	".discard.unreachable":                   1,
	".discard.reachable":                     1,
	".discard.retpoline_safe":                1,
	".discard.instr_begin":                   1,
	".discard.instr_end":                     1,
	".discard.intra_function_calls":          1,
	".discard.func_stack_frame_non_standard": 1,
	".discard.ignore_alts":                   1,
	".discard.annotate_insn":                 1,
	".discard.annotate_data":                 1,
}

// remade are the tables that objtool makes from code, so from the patch's too.
var remade = map[string]bool{
	".orc_unwind": true, ".orc_unwind_ip": true, ".orc_header": true, ".retpoline_sites": true, ".return_sites": true,
	".call_sites": true, ".static_call_sites": true, ".ibt_endbr_seal": true, ".cfi_sites": true, ".sframe": true,
}

// meaningless name functions for who starts the kernel, lists what may be traced
// or keeps the compiler from dropping something. They name the old function, whose
// entry stays.
var meaningless = map[string]bool{
	".discard.addressable": true, "_error_injection_whitelist": true, "_kprobe_blacklist": true,
	"__syscalls_metadata": true, "_ftrace_events": true, ".modinfo": true, ".printk_index": true,
	".discard.nospec":              true,
	"__patchable_function_entries": true, // with the room in front of functions; not where the tracer is called
}

// Sections of statics that may start anew in a patch: whether a message was shown
// once, and what dynamic debugging switches on and off for one message.
var restarted = map[string]bool{".data.once": true, "__dyndbg": true}

func exports(section string) bool {
	return strings.HasPrefix(section, "___ksymtab") || strings.HasPrefix(section, "__ksymtab") || strings.HasPrefix(section, "___kcrctab") || strings.HasPrefix(section, ".export_symbol")
}

// replacements holds the code that alternatives put in place.
const (
	replacements = ".altinstr_replacement"
	asides       = ".altinstr_aux" // code that functions jump to until alternatives are in place
)

// view returns o as package objdiff should see it: without the tables, with the
// code and data of start-up as what runs only then, and with the statics that may
// start anew as names. The original is not changed.
func view(o *object.Object) *object.Object {
	v := *o
	v.Sections = make([]*object.Section, len(o.Sections))
	v.Symbols = make([]object.Symbol, len(o.Symbols))
	copy(v.Symbols, o.Symbols)
	v.Functions = nil
	for i := range v.Symbols {
		v.Symbols[i].Name = numbered(v.Symbols[i].Name)
	}
	fresh := map[string]int{} // symbols that stand for statics
	for i, s := range o.Sections {
		if s == nil || carried[s.Name] > 0 || remade[s.Name] || meaningless[s.Name] || exports(s.Name) || restarted[s.Name] || s.Name == replacements || s.Name == asides {
			continue
		}
		x := *s
		if startup(s.Name) {
			x.Class = object.Initialiser
		}
		x.Relocs = make([]object.Reloc, len(s.Relocs))
		for n, r := range s.Relocs {
			x.Relocs[n] = redirect(o, &v, fresh, s, r)
		}
		v.Sections[i] = &x
		x.Functions = nil
		for _, f := range s.Functions {
			if x.Class == object.Code {
				g := *f
				g.Section = &x
				g.Alone = g.Alone || roomInFront(o, s)
				x.Functions = append(x.Functions, &g)
			}
		}
		v.Functions = append(v.Functions, x.Functions...)
	}
	return &v
}

// redirect returns relocation r of section s as the view has it: references to
// what is not compared are by name, whatever number and place it has.
func redirect(o, v *object.Object, fresh map[string]int, s *object.Section, r object.Reloc) object.Reloc {
	to, at, _ := o.TargetOf(s, r)
	if to == nil {
		return r
	}
	var name string
	rest := int64(0)
	switch {
	case restarted[to.Name]:
		name = to.Name
		if i, ok := o.Covering(to, at); ok {
			y := &o.Symbols[i]
			name, rest = fmt.Sprintf("%s of %s with %d bytes", plain(y.Name), to.Name, y.Size), at-int64(y.Value)
		}
	case to.Name == asides:
		name = "code aside"
	case startup(to.Name) && to.Class == object.Code:
		name = to.Name
		if f := o.FunctionAt(to, at); f != nil {
			name, rest = f.Name, at-int64(o.Symbols[f.Symbol].Value)
		}
	default:
		return r
	}
	i, ok := fresh[name]
	if !ok {
		i = len(v.Symbols)
		fresh[name] = i
		v.Symbols = append(v.Symbols, object.Symbol{Name: name, Section: object.Undefined})
	}
	r.Symbol, r.Addend = i, rest
	return r
}

// unique is what the kernel's macros put in front of names that the compiler's
// counter ends.
const unique = "__UNIQUE_ID_"

// numbered puts a dot between a name and the number that a macro put behind it,
// as the compiler does with its own numbers: they all count through the file and
// shift when something comes or goes.
func numbered(name string) string {
	if !strings.HasPrefix(name, unique) {
		return name
	}
	cut := strings.TrimRight(name, "0123456789")
	if cut == name || strings.HasSuffix(cut, ".") {
		return name
	}
	return cut + "." + name[len(cut):]
}

// plain cuts the numbers off a name.
func plain(name string) string {
	name = numbered(name)
	return strings.TrimRight(strings.TrimRight(name, "0123456789"), ".")
}

// nop is what fills the room that kernels leave in front of functions, for code
// that keeps count of calls.
const nop = 0x90

// roomInFront reports whether a section holds one function and nothing but room in
// front of it.
func roomInFront(o *object.Object, s *object.Section) bool {
	if len(s.Functions) != 1 || s.Data == nil || s.Name != ".text."+s.Functions[0].Name {
		return false
	}
	start := o.Symbols[s.Functions[0].Symbol].Value
	for _, b := range s.Data[:start] {
		if b != nop {
			return false
		}
	}
	return true
}

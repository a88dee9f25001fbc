package module_test

import (
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"livemend.dev/livemend/patch/module"
)

type part struct{ name, data string }

const (
	magic = "6.1.0-47-amd64 SMP preempt mod_unload modversions "
	id    = "\x04\x00\x00\x00\x14\x00\x00\x00\x03\x00\x00\x00GNU\x000123456789abcdefghij"
)

// info is what a live patch says of itself.
func info(lines ...string) part { return part{".modinfo", strings.Join(lines, "\x00") + "\x00"} }

func self(name string) part {
	return part{".gnu.linkonce.this_module", strings.Repeat("\x00", 24) + name + strings.Repeat("\x00", 80)}
}

func whole() []part {
	return []part{info("livepatch=Y", "license=GPL", "depends=ext4,jbd2", "name=livemend_a", "vermagic="+magic), self("livemend_a"),
		{".note.gnu.build-id", id}, {"__versions", strings.Repeat("v", 64)}}
}

// object makes the file that holds these sections and then rest.
func object(parts []part, rest string) []byte {
	le := binary.LittleEndian
	names, data := "\x00.shstrtab\x00", ""
	headers := make([]byte, 64*(len(parts)+2))
	put := func(i int, name, off, size uint64) {
		le.PutUint32(headers[64*i:], uint32(name))
		le.PutUint32(headers[64*i+4:], 1)
		le.PutUint64(headers[64*i+24:], off)
		le.PutUint64(headers[64*i+32:], size)
	}
	for i, p := range parts {
		put(i+2, uint64(len(names)), uint64(64+len(data)), uint64(len(p.data)))
		names += p.name + "\x00"
		data += p.data
	}
	put(1, 1, uint64(64+len(data)), uint64(len(names)))
	data += names
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 1)
	le.PutUint16(b[18:], 62)
	le.PutUint64(b[40:], uint64(64+len(data)))
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], uint16(len(parts)+2))
	le.PutUint16(b[62:], 1)
	return append(append(append(b, data...), headers...), rest...)
}

func TestRead(t *testing.T) {
	want := module.Module{
		Name: "livemend_a", Arch: "amd64", Release: "6.1.0-47-amd64", Flags: "SMP preempt mod_unload modversions ", Livepatch: true,
		Depends: []string{"ext4", "jbd2"}, Versions: true, BuildID: "303132333435363738396162636465666768696a",
	}
	got, err := module.Read(object(whole(), ""))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read = %+v, %v, want %+v", got, err, want)
	}
	got, err = module.Read(object(whole(), "signature~Module signature appended~\n"))
	if err != nil || !got.Signed {
		t.Errorf("a signed module reads as %+v, %v", got, err)
	}
	got, err = module.Read(object([]part{info("name=plain", "vermagic=6.1.0 SMP"), self("plain")}, ""))
	if want := (module.Module{Name: "plain", Arch: "amd64", Release: "6.1.0", Flags: "SMP"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a plain module reads as %+v, %v, want %+v", got, err, want)
	}
}

func TestRefused(t *testing.T) {
	with := func(i int, p part) []byte {
		parts := whole()
		parts[i] = p
		return object(parts, "")
	}
	change := func(at int, value byte) []byte {
		b := object(whole(), "")
		b[at] = value
		return b
	}
	for name, test := range map[string]struct {
		bytes []byte
		kind  error
	}{
		"nothing":                {nil, module.ErrFormat},
		"half of it":             {object(whole(), "")[:200], module.ErrFormat},
		"a program":              {change(16, 2), module.ErrFormat},
		"32 bits":                {change(4, 1), module.ErrFormat},
		"another processor":      {change(18, 3), module.ErrFormat},
		"names nowhere":          {change(62, 99), module.ErrFormat},
		"list behind the end":    {change(44, 1), module.ErrFormat},
		"no sections":            {object(nil, ""), module.ErrFact},
		"no name":                {with(0, info("vermagic="+magic)), module.ErrFact},
		"no kernel":              {with(0, info("name=livemend_a")), module.ErrFact},
		"an empty kernel":        {with(0, info("name=livemend_a", "vermagic= SMP")), module.ErrFact},
		"two kernels":            {with(0, info("name=livemend_a", "vermagic="+magic, "vermagic="+magic)), module.ErrFact},
		"two names":              {with(1, self("livemend_b")), module.ErrFact},
		"a longer name":          {with(1, self("livemend_ab")), module.ErrFact},
		"a name that is a path":  {with(0, info("name=../a", "vermagic="+magic)), module.ErrFact},
		"a need that is a path":  {with(0, info("name=livemend_a", "vermagic="+magic, "depends=a/b")), module.ErrFact},
		"unprintable":            {with(0, info("name=livemend_a", "vermagic=6.1\n SMP")), module.ErrFact},
		"one section twice":      {object(append(whole(), whole()[0]), ""), module.ErrFact},
		"a long name":            {with(0, info("name="+strings.Repeat("a", module.MaxName+1), "vermagic="+magic)), module.ErrLimit},
		"it says a lot":          {with(0, info(strings.Repeat("a", 1<<17))), module.ErrLimit},
		"it needs a lot":         {with(0, info("name=livemend_a", "vermagic="+magic, "depends="+strings.Repeat("a,", module.MaxDepends)+"a")), module.ErrLimit},
		"larger than any module": {make([]byte, module.MaxSize+1), module.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := module.Read(test.bytes); !errors.Is(err, test.kind) {
				t.Errorf("Read = %+v, %v, want %v", m, err, test.kind)
			}
		})
	}
}

// FuzzRead holds that whatever is accepted has the facts that a loader relies
// on, within the limits.
func FuzzRead(f *testing.F) {
	f.Add(object(whole(), ""))
	f.Add(object(whole(), "~Module signature appended~\n"))
	f.Add(object([]part{info("name=plain", "vermagic=6.1.0 SMP"), self("plain")}, ""))
	f.Add(object(nil, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := module.Read(b)
		if err != nil {
			var wrong *module.Error
			if !errors.As(err, &wrong) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if m.Name == "" || len(m.Name) > module.MaxName || strings.ContainsAny(m.Name, "/.\x00 ") || m.Release == "" ||
			len(m.Release)+len(m.Flags) > module.MaxMagic || len(m.Depends) > module.MaxDepends || m.BuildID != "" && !m.BuildID.Valid() {
			t.Fatalf("accepted: %+v", m)
		}
	})
}

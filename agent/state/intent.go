package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"livemend.dev/livemend/agent/kernel/intent"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/internal/hextext"
	"livemend.dev/livemend/wire"
)

// The intent record is written while a patch waits for it, so its file is not
// replaced like the others: it has two slots that are overwritten in turn, which
// takes one flush of the disk. A slot is a checksum in hexadecimal, a line feed,
// a document with a number that counts up, and zeros. The newer whole slot
// counts; one that a crash left torn was not acknowledged.
const (
	intentFile = "intent"
	slotSize   = 4 << 10
	slots      = 2
)

// Intent returns the kernel patch that is in doubt; nothing is before SetIntent.
func (s *Store) Intent() intent.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.intent
}

// SetIntent records, durably before it returns, which kernel patch is in doubt.
func (s *Store) SetIntent(r intent.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := s.intentNumber + 1
	members := append(intentMembers(&r), cjson.F("number", cjson.Int(number)))
	if r.Before != nil {
		members = append(members, cjson.F("before", cjson.Object(intentMembers(r.Before)...)))
	}
	text := cjson.Object(members...).JSON()
	sum := sha256.Sum256(text)
	slot := append([]byte(hextext.Encode(sum[:])+"\n"), text...)
	if len(slot) > slotSize {
		return errors.New("the name of the live patch is too long to be written down; nothing was loaded")
	}
	slot = append(slot, make([]byte, slotSize-len(slot))...)
	if err := s.writeSlot(slot, number); err != nil {
		return err
	}
	s.intent, s.intentNumber = r, number
	return nil
}

// writeSlot makes a slot durable. The caller holds s.mu.
func (s *Store) writeSlot(slot []byte, number int64) error {
	if number == 1 {
		return s.write(intentFile, append(make([]byte, slotSize), slot...))
	}
	f, err := os.OpenFile(filepath.Join(s.dir, intentFile), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(slot, number%slots*slotSize)
	if err == nil {
		err = syscall.Fdatasync(int(f.Fd()))
	}
	return errors.Join(err, f.Close())
}

func (s *Store) loadIntent() error {
	b, err := s.read(intentFile)
	if errors.Is(err, ErrAbsent) {
		return nil
	}
	if err == nil && len(b) != slots*slotSize {
		err = damaged(intentFile, errors.New("it has the wrong size"))
	}
	if err != nil {
		return err
	}
	for len(b) > 0 {
		r, number, err := readSlot(b[:slotSize])
		if err == nil && number > s.intentNumber {
			s.intent, s.intentNumber = r, number
		}
		b = b[slotSize:]
	}
	if s.intentNumber == 0 {
		return damaged(intentFile, errors.New("no part of it is whole"))
	}
	return nil
}

// readSlot returns the record in a slot and its number.
func readSlot(b []byte) (r intent.Record, number int64, err error) {
	sum, text, found := bytes.Cut(bytes.TrimRight(b, "\x00"), []byte("\n"))
	want := sha256.Sum256(text)
	if !found || string(sum) != hextext.Encode(want[:]) {
		return r, 0, errors.New("torn")
	}
	v, err := cjson.Parse(text)
	if err != nil {
		return r, 0, err
	}
	c := cjson.Fields(v)
	r = readIntent(c)
	if c.Has("before") {
		before := readIntent(c.Object("before"))
		r.Before = &before
	}
	return r, c.Int("number"), c.Err()
}

func readIntent(c cjson.Cursor) intent.Record {
	return intent.Record{
		Patch: intent.Patch{
			SHA256: c.OptText("sha256", wire.MaxID), Path: c.OptText("path", wire.MaxMessage), BuildID: c.OptText("build_id", wire.MaxID),
			Level: c.OptInt("level"), Module: c.OptText("module", wire.MaxID), ModuleID: c.OptText("module_id", wire.MaxID),
		},
		Phase: intent.Phase(c.OptText("phase", wire.MaxID)), BootID: c.OptText("boot_id", wire.MaxID),
		Since: c.OptInt("since"), Strikes: c.OptInt("strikes"),
	}
}

func intentMembers(r *intent.Record) []cjson.Member {
	return []cjson.Member{
		cjson.F("sha256", cjson.String(r.SHA256)), cjson.F("path", cjson.String(r.Path)), cjson.F("build_id", cjson.String(r.BuildID)),
		cjson.F("level", cjson.Int(r.Level)), cjson.F("module", cjson.String(r.Module)), cjson.F("module_id", cjson.String(r.ModuleID)),
		cjson.F("phase", cjson.String(string(r.Phase))), cjson.F("boot_id", cjson.String(r.BootID)),
		cjson.F("since", cjson.Int(r.Since)), cjson.F("strikes", cjson.Int(r.Strikes)),
	}
}

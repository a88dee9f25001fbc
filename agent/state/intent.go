package state

import (
	"errors"

	"livemend.dev/livemend/agent/kernel/intent"
	"livemend.dev/livemend/internal/cjson"
	"livemend.dev/livemend/wire"
)

const intentFile = "intent.json"

// Intent returns the kernel patch that is in doubt; nothing is before SetIntent.
func (s *Store) Intent() (intent.Record, error) {
	v, err := s.readJSON(intentFile)
	if errors.Is(err, ErrAbsent) {
		return intent.Record{}, nil
	}
	if err != nil {
		return intent.Record{}, err
	}
	c := cjson.Fields(v)
	r := readIntent(c)
	if c.Has("before") {
		before := readIntent(c.Object("before"))
		r.Before = &before
	}
	return r, damaged(intentFile, c.Err())
}

// SetIntent records, durably before it returns, which kernel patch is in doubt.
func (s *Store) SetIntent(r intent.Record) error {
	members := intentMembers(&r)
	if r.Before != nil {
		members = append(members, cjson.F("before", cjson.Object(intentMembers(r.Before)...)))
	}
	return s.writeJSON(intentFile, cjson.Object(members...))
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

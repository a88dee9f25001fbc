package cjson_test

import (
	"errors"
	"strings"
	"testing"

	"livemend.dev/livemend/internal/cjson"
)

func TestParseThenCanonical(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`null`, `null`},
		{` { "b" : [1, -2,3 ] , "a" : true } `, `{"a":true,"b":[1,-2,3]}`},
		{`"\u00e9\ud83d\ude00\/\"\\"`, `"é😀/\"\\"`},
		{`-9223372036854775808`, `-9223372036854775808`},
		{`{"z":{},"y":[],"x":false}`, `{"x":false,"y":[],"z":{}}`},
	} {
		v, err := cjson.Parse([]byte(tt.in))
		if err != nil {
			t.Errorf("Parse(%s): %v", tt.in, err)
			continue
		}
		if got := string(v.Canonical()); got != tt.want {
			t.Errorf("Parse(%s).Canonical() = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestControlCharacters(t *testing.T) {
	v := cjson.String("a\n\x01\"")
	if got, want := string(v.Canonical()), "\"a\n\x01\\\"\""; got != want {
		t.Errorf("Canonical() = %q, want %q", got, want)
	}
	back, err := cjson.Parse(v.JSON())
	if err != nil {
		t.Fatalf("Parse(%s): %v", v.JSON(), err)
	}
	if s, _ := back.Text(); s != "a\n\x01\"" {
		t.Errorf("JSON() changed the text to %q", s)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		in  string
		err error
	}{
		{``, cjson.ErrSyntax},
		{`{"a":1,}`, cjson.ErrSyntax},
		{`[1 2]`, cjson.ErrSyntax},
		{`01`, cjson.ErrSyntax},
		{`-`, cjson.ErrSyntax},
		{`truefalse`, cjson.ErrSyntax},
		{"\"a\x01\"", cjson.ErrSyntax},
		{`"\x"`, cjson.ErrSyntax},
		{`{"a":1,"a":2}`, cjson.ErrDuplicate},
		{`{"b":1,"a":2,"b":3}`, cjson.ErrDuplicate},
		{`{"a":1,"\u0061":2}`, cjson.ErrDuplicate},
		{`1.5`, cjson.ErrNumber},
		{`1e3`, cjson.ErrNumber},
		{`9223372036854775808`, cjson.ErrNumber},
		{"\"\xff\"", cjson.ErrUTF8},
		{`"\ud800"`, cjson.ErrUTF8},
		{strings.Repeat("[", 10_000), cjson.ErrDepth},
		{"[" + strings.Repeat("1,", cjson.MaxValues) + "1]", cjson.ErrSize},
	} {
		if _, err := cjson.Parse([]byte(tt.in)); !errors.Is(err, tt.err) {
			t.Errorf("Parse(%.40q) = %v, want %v", tt.in, err, tt.err)
		}
	}
}

func TestCursorKeepsFirstError(t *testing.T) {
	v, err := cjson.Parse([]byte(`{"name":"x","n":3,"inner":{"list":["a","bb"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := cjson.Fields(v)
	if c.Text("name", 8) != "x" || c.Int("n") != 3 || c.Object("inner").Texts("list", 2, 2)[1] != "bb" || c.OptText("absent", 1) != "" {
		t.Error("wrong values read")
	}
	if c.Err() != nil {
		t.Fatalf("unexpected error: %v", c.Err())
	}
	c.Object("inner").Texts("list", 1, 2)
	c.Int("absent")
	var fe *cjson.FieldError
	if !errors.As(c.Err(), &fe) || fe.Field != "list" {
		t.Errorf("Err() = %v, want the first failure, field list", c.Err())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":[1,"\u00e9",{"b":null}],"c":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := cjson.Parse(b)
		if err != nil {
			return
		}
		once := v.JSON()
		again, err := cjson.Parse(once)
		if err != nil {
			t.Fatalf("JSON form does not parse: %v: %q", err, once)
		}
		if string(again.JSON()) != string(once) || string(again.Canonical()) != string(v.Canonical()) {
			t.Fatalf("forms are not stable: %q", once)
		}
	})
}

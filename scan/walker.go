package scan

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// walker reads XML as a stream, element by element, within the limits.
type walker struct {
	dec   *xml.Decoder
	depth int
}

// capped fails, instead of ending, after MaxReport bytes.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, ErrLimit
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// newWalker reads r in strict mode: no entities but XML's own five, UTF-8 only.
func newWalker(r io.Reader) *walker {
	return &walker{dec: xml.NewDecoder(&capped{r: r, left: MaxReport})}
}

func (w *walker) fail(kind error, what string) error {
	line, _ := w.dec.InputPos()
	return fmt.Errorf("%w: line %d: %s", kind, line, what)
}

// token returns the next token that matters.
func (w *walker) token() (xml.Token, error) {
	for {
		token, err := w.dec.Token()
		var syntax *xml.SyntaxError
		switch {
		case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		case err != nil:
			return nil, err // also io.EOF, at the top only
		}
		switch t := token.(type) {
		case xml.Directive:
			return nil, w.fail(ErrFormat, "a document type declaration is not taken")
		case xml.StartElement:
			if w.depth++; w.depth > MaxDepth {
				return nil, w.fail(ErrLimit, "elements are nested too deep")
			}
			for _, a := range t.Attr {
				if len(a.Value) > MaxText {
					return nil, w.fail(ErrLimit, "an attribute is too long")
				}
			}
			return t, nil
		case xml.EndElement:
			w.depth--
			return t, nil
		case xml.CharData:
			return t, nil
		}
	}
}

// root returns the document's first element.
func (w *walker) root() (xml.StartElement, error) {
	for {
		token, err := w.token()
		if errors.Is(err, io.EOF) {
			return xml.StartElement{}, w.fail(ErrFormat, "it is empty")
		}
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := token.(xml.StartElement); ok {
			return start, nil
		}
	}
}

// end checks that nothing but white space follows.
func (w *walker) end() error {
	for {
		token, err := w.token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if text, ok := token.(xml.CharData); !ok || strings.TrimSpace(string(text)) != "" {
			return w.fail(ErrFormat, "something follows the report")
		}
	}
}

// children calls f for each child of the element whose start was read last,
// and returns after its end. f reads its element to the end, by children, text
// or skip.
func (w *walker) children(f func(xml.StartElement) error) error {
	for {
		token, err := w.token()
		if errors.Is(err, io.EOF) {
			return w.fail(ErrFormat, "it ends too early")
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := f(t); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}

// under calls f for each child called name and skips the others.
func (w *walker) under(name string, f func(xml.StartElement) error) error {
	return w.children(func(e xml.StartElement) error {
		if e.Name.Local != name {
			return w.skip()
		}
		return f(e)
	})
}

// skip reads the element whose start was read last to its end.
func (w *walker) skip() error {
	return w.children(func(xml.StartElement) error { return w.skip() })
}

// text returns the text of the element whose start was read last, without the
// white space around it.
func (w *walker) text() (string, error) {
	var b strings.Builder
	for {
		token, err := w.token()
		if errors.Is(err, io.EOF) {
			return "", w.fail(ErrFormat, "it ends too early")
		}
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := w.skip(); err != nil {
				return "", err
			}
		case xml.EndElement:
			return strings.TrimSpace(b.String()), nil
		case xml.CharData:
			if b.Len()+len(t) > MaxText {
				return "", w.fail(ErrLimit, "a text is too long")
			}
			b.Write(t)
		}
	}
}

// into reads the text of an element into dest.
func (w *walker) into(dest *string) error {
	text, err := w.text()
	*dest = text
	return err
}

// attr returns the value of an attribute without name space, or "".
func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// keep puts a value into a table with a bounded number of entries.
func keep[V any](w *walker, table map[string]V, id string, v V) error {
	if len(table) >= MaxEntries {
		return w.fail(ErrLimit, "too many entries")
	}
	table[id] = v
	return nil
}

// addID adds an identifier to a rule's, once.
func addID(w *walker, ids *[]string, id string) error {
	if id == "" || slices.Contains(*ids, id) {
		return nil
	}
	if len(*ids) >= MaxIDs {
		return w.fail(ErrLimit, "too many identifiers in one rule")
	}
	*ids = append(*ids, id)
	return nil
}

package web

import (
	"strconv"

	"livemend.dev/livemend/platform"
)

// number is a whole number of the form, not negative; an empty field is 0.
func number(v *visit, name string) (int64, error) {
	text := v.text(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, &platform.Problem{Err: platform.ErrInput, Text: "“" + text + "” is not a whole number. Nothing was changed."}
	}
	return n, nil
}

// picked are the rows that were picked in the form or named in the address.
func picked(v *visit, name string) ([]string, error) {
	if err := v.r.ParseForm(); err != nil {
		return nil, &platform.Problem{Err: platform.ErrInput, Text: "The form could not be read. Nothing was changed. Try again."}
	}
	values := v.r.Form[name]
	if len(values) > maxPicked {
		return nil, &platform.Problem{Err: platform.ErrInput,
			Text: "More than " + thousands(maxPicked) + " rows are picked. Nothing was changed. Pick fewer, or use the REST API."}
	}
	var out []string
	for _, value := range values {
		if value != "" {
			out = append(out, value)
		}
	}
	return out, nil
}

package object

import (
	"debug/dwarf"
)

// Producer returns the compiler and its flags as the debug information of an
// object's first unit names them, or the empty text: debug information is a
// help for people and no decision rests on it.
func Producer(data []byte) string {
	var text string
	err := guard("", func() error {
		f, err := open(data)
		if err != nil {
			return err
		}
		d, err := f.DWARF()
		if err != nil {
			return err
		}
		unit, err := d.Reader().Next()
		if err != nil || unit == nil {
			return err
		}
		text, _ = unit.Val(dwarf.AttrProducer).(string)
		return nil
	})
	if err != nil {
		return ""
	}
	return text
}

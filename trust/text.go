package trust

import "time"

// parseTime reads the one form of time that TUF metadata has,
// 2030-01-31T23:59:59Z. time.Parse would add 9 kB to the agent.
func parseTime(s string) (time.Time, bool) {
	const form = "0000-00-00T00:00:00Z"
	if len(s) != len(form) {
		return time.Time{}, false
	}
	var n [6]int
	field := 0
	for i := 0; i < len(s); i++ {
		if form[i] != '0' {
			if s[i] != form[i] {
				return time.Time{}, false
			}
			field++
			continue
		}
		if s[i] < '0' || s[i] > '9' {
			return time.Time{}, false
		}
		n[field] = n[field]*10 + int(s[i]-'0')
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, time.UTC)
	// Date normalises the 31st of February; such a date is a mistake.
	if FormatTime(t) != s {
		return time.Time{}, false
	}
	return t, true
}

// FormatTime writes t as TUF metadata spells times: UTC, whole seconds.
func FormatTime(t time.Time) string {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b := digits(nil, year, 4)
	b = digits(append(b, '-'), int(month), 2)
	b = digits(append(b, '-'), day, 2)
	b = digits(append(b, 'T'), hour, 2)
	b = digits(append(b, ':'), minute, 2)
	b = digits(append(b, ':'), second, 2)
	return string(append(b, 'Z'))
}

func digits(b []byte, n, width int) []byte {
	for div := pow10(width - 1); div > 0; div /= 10 {
		b = append(b, byte('0'+n/div%10))
	}
	return b
}

func pow10(n int) int {
	p := 1
	for range n {
		p *= 10
	}
	return p
}

// Package audit is the record of who did what. An entry is written in the same
// transaction as the deed, is never changed and never holds a secret. The
// package is pure; the store keeps the entries.
package audit

import "time"

// Entry is one deed.
type Entry struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`  // a person's or token's name; "platform" for its own deeds
	Action string    `json:"action"` // verb.noun: create.key, approve.enrolment
	Object string    `json:"object"` // id of what it was done to
	Detail string    `json:"detail"` // for people
}

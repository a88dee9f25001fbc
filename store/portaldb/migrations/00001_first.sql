-- +goose Up
CREATE TABLE portal_partner (
	id      TEXT   NOT NULL PRIMARY KEY,
	name    TEXT   NOT NULL UNIQUE,
	created BIGINT NOT NULL
);

-- The text of a credential is never stored, only its SHA-256.
CREATE TABLE portal_credential (
	id      TEXT   NOT NULL PRIMARY KEY,
	partner TEXT   NOT NULL REFERENCES portal_partner (id),
	hash    BYTEA  NOT NULL,
	scopes  TEXT   NOT NULL,
	created BIGINT NOT NULL
);

CREATE TABLE portal_customer (
	id      TEXT   NOT NULL PRIMARY KEY,
	partner TEXT   NOT NULL REFERENCES portal_partner (id),
	name    TEXT   NOT NULL,
	created BIGINT NOT NULL
);
CREATE INDEX portal_customer_partner ON portal_customer (partner, created, id);

CREATE TABLE portal_key (
	id           TEXT    NOT NULL PRIMARY KEY,
	partner      TEXT    NOT NULL REFERENCES portal_partner (id),
	customer     TEXT    NOT NULL REFERENCES portal_customer (id),
	public       BYTEA   NOT NULL,
	note         TEXT    NOT NULL,
	server_limit BIGINT  NOT NULL,
	expires      BIGINT  NOT NULL, -- 0: never
	enabled      BOOLEAN NOT NULL,
	created      BIGINT  NOT NULL
);
CREATE INDEX portal_key_customer ON portal_key (partner, customer, created, id);

CREATE TABLE portal_system (
	id           TEXT   NOT NULL PRIMARY KEY,
	partner      TEXT   NOT NULL REFERENCES portal_partner (id),
	customer     TEXT   NOT NULL REFERENCES portal_customer (id),
	key_id       TEXT   NOT NULL, -- '': the partner vouched; the key may be gone
	identity_key BYTEA  NOT NULL,
	channel_key  BYTEA  NOT NULL,
	hostname     TEXT   NOT NULL,
	machine_id   TEXT   NOT NULL,
	os           TEXT   NOT NULL,
	os_version   TEXT   NOT NULL,
	kernel       TEXT   NOT NULL,
	kernel_id    TEXT   NOT NULL,
	arch         TEXT   NOT NULL,
	flags        TEXT   NOT NULL, -- separated by spaces
	created      BIGINT NOT NULL,
	registered   BIGINT NOT NULL, -- last registration with the same identity
	UNIQUE (partner, identity_key)
);
CREATE INDEX portal_system_customer ON portal_system (partner, customer, created, id);
CREATE INDEX portal_system_key ON portal_system (key_id);
CREATE INDEX portal_system_machine ON portal_system (customer, machine_id);

CREATE TABLE portal_audit (
	id      TEXT   NOT NULL PRIMARY KEY,
	partner TEXT   NOT NULL,
	at      BIGINT NOT NULL,
	actor   TEXT   NOT NULL,
	action  TEXT   NOT NULL,
	object  TEXT   NOT NULL,
	detail  TEXT   NOT NULL
);
CREATE INDEX portal_audit_partner ON portal_audit (partner, at, id);

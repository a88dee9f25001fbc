-- +goose Up
CREATE TABLE platform_organisation (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    customer_id TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

-- Numbers that count up within an organisation: jobs, events, audit entries.
CREATE TABLE platform_sequence (
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    name TEXT NOT NULL,
    value BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, name)
);

CREATE TABLE platform_user (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    must_change BOOLEAN NOT NULL,
    disabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    signed_in_at BIGINT NOT NULL
);

CREATE TABLE platform_session (
    hash TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES platform_user (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL
);
CREATE INDEX platform_session_user ON platform_session (user_id);

CREATE TABLE platform_api_token (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL
);

-- Wrong sign-ins of one name or address.
CREATE TABLE platform_lockout (
    subject TEXT PRIMARY KEY,
    level BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE platform_audit (
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    id BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (organisation_id, id)
);

-- sealed is the key's text, encrypted under the platform's master key.
CREATE TABLE platform_key (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    note TEXT NOT NULL,
    server_limit BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    enabled BOOLEAN NOT NULL,
    sealed BYTEA NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- identity_key is the machine that used the token; it may repeat its request.
CREATE TABLE platform_token (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    note TEXT NOT NULL,
    public BYTEA NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    identity_key BYTEA,
    used_by TEXT NOT NULL
);

CREATE TABLE platform_enrolment (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    identity_key BYTEA NOT NULL,
    channel_key BYTEA NOT NULL,
    facts TEXT NOT NULL,
    address TEXT NOT NULL,
    state TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    decided_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    system_id TEXT NOT NULL,
    UNIQUE (organisation_id, identity_key)
);

-- counter is that of the last manifest; it never goes back.
CREATE TABLE platform_server (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    hostname TEXT NOT NULL,
    machine_id TEXT NOT NULL,
    os TEXT NOT NULL,
    os_version TEXT NOT NULL,
    kernel TEXT NOT NULL,
    kernel_id TEXT NOT NULL,
    arch TEXT NOT NULL,
    agent TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    identity_key BYTEA NOT NULL,
    channel_key BYTEA NOT NULL UNIQUE,
    via TEXT NOT NULL,
    flags TEXT NOT NULL,
    enrolled_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    inventory_at BIGINT NOT NULL,
    counter BIGINT NOT NULL
);
CREATE INDEX platform_server_list ON platform_server (organisation_id, hostname, id);

-- snapshot is the agent's inventory as it came.
CREATE TABLE platform_inventory (
    server_id TEXT PRIMARY KEY REFERENCES platform_server (id) ON DELETE CASCADE,
    snapshot BYTEA NOT NULL
);

CREATE TABLE platform_applied (
    server_id TEXT NOT NULL REFERENCES platform_server (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    level BIGINT NOT NULL,
    processes BIGINT NOT NULL,
    cves TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (server_id, path)
);

CREATE TABLE platform_finding (
    server_id TEXT NOT NULL REFERENCES platform_server (id) ON DELETE CASCADE,
    scanner TEXT NOT NULL,
    definition TEXT NOT NULL,
    cve TEXT NOT NULL,
    component TEXT NOT NULL,
    installed TEXT NOT NULL,
    fixed TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    open BOOLEAN NOT NULL,
    job_id BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (server_id, scanner, definition, cve, component)
);

-- What package coverage computed; rank and severity_rank sort worst first.
CREATE TABLE platform_coverage (
    server_id TEXT NOT NULL REFERENCES platform_server (id) ON DELETE CASCADE,
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    cve TEXT NOT NULL,
    component TEXT NOT NULL,
    scope TEXT NOT NULL,
    state TEXT NOT NULL,
    rank BIGINT NOT NULL,
    severity TEXT NOT NULL,
    severity_rank BIGINT NOT NULL,
    title TEXT NOT NULL,
    reason TEXT NOT NULL,
    installed TEXT NOT NULL,
    patch_path TEXT NOT NULL,
    patch_id TEXT NOT NULL,
    patch_level BIGINT NOT NULL,
    library TEXT NOT NULL,
    processes BIGINT NOT NULL,
    patched BIGINT NOT NULL,
    update_version TEXT NOT NULL,
    advisory TEXT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (server_id, cve, component, scope)
);
CREATE INDEX platform_coverage_list ON platform_coverage (organisation_id, rank, severity_rank, cve);
CREATE INDEX platform_coverage_cve ON platform_coverage (organisation_id, cve);

-- The partner's own metadata about ordinary package updates.
CREATE TABLE platform_update (
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    cve TEXT NOT NULL,
    component TEXT NOT NULL,
    distribution TEXT NOT NULL,
    fixed_version TEXT NOT NULL,
    advisory TEXT NOT NULL,
    PRIMARY KEY (organisation_id, cve, component, distribution)
);

-- Targets of the portal's repository, verified. A withdrawn one stays, because
-- servers may have it. The repository is the partner's, so is this table.
CREATE TABLE platform_target (
    path TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    sha512 TEXT NOT NULL,
    length BIGINT NOT NULL,
    custom TEXT NOT NULL,
    first_seen BIGINT NOT NULL,
    withdrawn_at BIGINT NOT NULL
);

CREATE TABLE platform_catalogue (
    id BIGINT PRIMARY KEY,
    refreshed_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    error TEXT NOT NULL
);

-- When somebody of the organisation last looked at what is new.
CREATE TABLE platform_looked (
    organisation_id TEXT PRIMARY KEY REFERENCES platform_organisation (id),
    at BIGINT NOT NULL
);

CREATE TABLE platform_block (
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    path TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (organisation_id, path)
);

CREATE TABLE platform_job (
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    id BIGINT NOT NULL,
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    state TEXT NOT NULL,
    stage BIGINT NOT NULL,
    halted BOOLEAN NOT NULL,
    reason TEXT NOT NULL,
    stages TEXT NOT NULL,
    silence BIGINT NOT NULL,
    tolerate BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, id)
);

-- Tasks outlive the server they were for: they are the record of what was done.
CREATE TABLE platform_task (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL,
    job_id BIGINT NOT NULL,
    position BIGINT NOT NULL,
    server_id TEXT NOT NULL,
    hostname TEXT NOT NULL,
    action TEXT NOT NULL,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    length BIGINT NOT NULL,
    level BIGINT NOT NULL,
    build_id TEXT NOT NULL,
    scanner TEXT NOT NULL,
    stage BIGINT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    issues BIGINT NOT NULL,
    deadline BIGINT NOT NULL,
    counter BIGINT NOT NULL,
    manifest BYTEA,
    changed_at BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,
    FOREIGN KEY (organisation_id, job_id) REFERENCES platform_job (organisation_id, id),
    UNIQUE (organisation_id, job_id, position)
);
CREATE INDEX platform_task_server ON platform_task (server_id, state);
CREATE INDEX platform_task_state ON platform_task (state, deadline);

CREATE TABLE platform_check (
    task_id TEXT NOT NULL REFERENCES platform_task (id),
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (task_id, position)
);

CREATE TABLE platform_result (
    task_id TEXT PRIMARY KEY REFERENCES platform_task (id),
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    text TEXT NOT NULL,
    manifest TEXT NOT NULL,
    processes TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    report BYTEA NOT NULL
);

CREATE TABLE platform_event (
    organisation_id TEXT NOT NULL REFERENCES platform_organisation (id),
    id BIGINT NOT NULL,
    kind TEXT NOT NULL,
    job_id BIGINT NOT NULL,
    task_id TEXT NOT NULL,
    server_id TEXT NOT NULL,
    text TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, id)
);
CREATE INDEX platform_event_job ON platform_event (organisation_id, job_id, id);
CREATE INDEX platform_event_server ON platform_event (organisation_id, server_id, id);

-- +goose Down
DROP TABLE platform_event;
DROP TABLE platform_result;
DROP TABLE platform_check;
DROP TABLE platform_task;
DROP TABLE platform_job;
DROP TABLE platform_block;
DROP TABLE platform_looked;
DROP TABLE platform_catalogue;
DROP TABLE platform_target;
DROP TABLE platform_update;
DROP TABLE platform_coverage;
DROP TABLE platform_finding;
DROP TABLE platform_applied;
DROP TABLE platform_inventory;
DROP TABLE platform_server;
DROP TABLE platform_enrolment;
DROP TABLE platform_token;
DROP TABLE platform_key;
DROP TABLE platform_audit;
DROP TABLE platform_lockout;
DROP TABLE platform_api_token;
DROP TABLE platform_session;
DROP TABLE platform_user;
DROP TABLE platform_sequence;
DROP TABLE platform_organisation;

-- 0009

CREATE TABLE alembic_version ( version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num) )

CREATE TABLE engines ( recipe TEXT NOT NULL, namespace TEXT NOT NULL, "key" TEXT NOT NULL, digest TEXT NOT NULL, size BIGINT NOT NULL, weights TEXT NOT NULL, build TEXT NOT NULL, created DOUBLE NOT NULL, build_seconds DOUBLE NOT NULL, manifest_json TEXT NOT NULL, graph TEXT DEFAULT '' NOT NULL, capability TEXT DEFAULT '' NOT NULL, manifest TEXT DEFAULT '' NOT NULL, CONSTRAINT pk_engines PRIMARY KEY (recipe, namespace) )

CREATE INDEX ix_engines_created ON engines (created)

CREATE INDEX ix_engines_key ON engines ("key")

CREATE TABLE key_parts ( "key" TEXT NOT NULL, recipe TEXT NOT NULL, graph TEXT NOT NULL, model TEXT NOT NULL, target TEXT NOT NULL, recorded DOUBLE NOT NULL, parts_json TEXT NOT NULL, outline TEXT DEFAULT '' NOT NULL, trusted BOOLEAN DEFAULT true NOT NULL, CONSTRAINT pk_key_parts PRIMARY KEY ("key", recipe) )

CREATE INDEX ix_key_parts_graph ON key_parts (graph, recorded)

CREATE INDEX ix_key_parts_recipe ON key_parts (recipe)

CREATE INDEX ix_key_parts_recorded ON key_parts (recorded)

CREATE TABLE builds ( id TEXT NOT NULL, namespace TEXT NOT NULL, recipe TEXT NOT NULL, "key" TEXT NOT NULL, capability TEXT NOT NULL, priority INTEGER NOT NULL, state TEXT NOT NULL, created DOUBLE NOT NULL, number INTEGER NOT NULL, attempts INTEGER DEFAULT '0' NOT NULL, started DOUBLE, finished DOUBLE, not_before DOUBLE, failure_kind TEXT, failure_message TEXT, failure_hint TEXT, engine TEXT, token BIGINT DEFAULT '0' NOT NULL, worker TEXT, lease_expires DOUBLE, cancel_requested BOOLEAN DEFAULT false NOT NULL, remembered BOOLEAN DEFAULT false NOT NULL, phase TEXT DEFAULT '' NOT NULL, progress DOUBLE, log_size BIGINT DEFAULT '0' NOT NULL, request_json TEXT NOT NULL, tenant TEXT DEFAULT '' NOT NULL, flow TEXT DEFAULT '' NOT NULL, turn DOUBLE DEFAULT '0' NOT NULL, memory BIGINT DEFAULT '0' NOT NULL, gpu_memory BIGINT DEFAULT '0' NOT NULL, node TEXT, CONSTRAINT pk_builds PRIMARY KEY (id) )

CREATE INDEX ix_builds_created ON builds (created, number, state)

CREATE INDEX ix_builds_remembered ON builds (namespace, recipe) WHERE remembered = 1

CREATE INDEX ix_builds_running ON builds (id, lease_expires, worker) WHERE state = 'running'

CREATE UNIQUE INDEX uq_builds_active ON builds (namespace, recipe) WHERE state IN ('queued', 'running')

CREATE TABLE waiters ( build TEXT NOT NULL, waiter TEXT NOT NULL, since DOUBLE NOT NULL, CONSTRAINT pk_waiters PRIMARY KEY (build, waiter), CONSTRAINT fk_waiters_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE )

CREATE INDEX ix_waiters_waiter ON waiters (waiter)

CREATE TABLE events ( id INTEGER NOT NULL, build TEXT NOT NULL, at DOUBLE NOT NULL, kind TEXT NOT NULL, detail_json TEXT NOT NULL, CONSTRAINT pk_events PRIMARY KEY (id), CONSTRAINT fk_events_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE )

CREATE INDEX ix_events_build ON events (build, id)

CREATE TABLE attempts ( build TEXT NOT NULL, token BIGINT NOT NULL, number INTEGER NOT NULL, worker TEXT NOT NULL, started DOUBLE NOT NULL, finished DOUBLE, outcome TEXT DEFAULT '' NOT NULL, message TEXT DEFAULT '' NOT NULL, CONSTRAINT pk_attempts PRIMARY KEY (build, token), CONSTRAINT fk_attempts_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE )

CREATE TABLE log_chunks ( build TEXT NOT NULL, ends BIGINT NOT NULL, text TEXT NOT NULL, CONSTRAINT pk_log_chunks PRIMARY KEY (build, ends), CONSTRAINT fk_log_chunks_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE )

CREATE TABLE workers ( id TEXT NOT NULL, host TEXT NOT NULL, pid BIGINT NOT NULL, born DOUBLE NOT NULL, capabilities_json TEXT NOT NULL, detail_json TEXT NOT NULL, seen DOUBLE NOT NULL, CONSTRAINT pk_workers PRIMARY KEY (id) )

CREATE TABLE programs ( digest TEXT NOT NULL, name TEXT NOT NULL, format TEXT NOT NULL, size BIGINT NOT NULL, graph TEXT NOT NULL, weights TEXT NOT NULL, created DOUBLE NOT NULL, used DOUBLE DEFAULT '0' NOT NULL, CONSTRAINT pk_programs PRIMARY KEY (digest) )

CREATE INDEX ix_programs_created ON programs (created)

CREATE TABLE forms ( program TEXT NOT NULL, exporter TEXT NOT NULL, graph TEXT NOT NULL, data TEXT, detail_json TEXT NOT NULL, created DOUBLE NOT NULL, side TEXT DEFAULT '' NOT NULL, size BIGINT DEFAULT '0' NOT NULL, CONSTRAINT pk_forms PRIMARY KEY (program, exporter) )

CREATE TABLE sweeps ( id TEXT NOT NULL, created DOUBLE NOT NULL, spec_json TEXT NOT NULL, cancelled BOOLEAN DEFAULT false NOT NULL, CONSTRAINT pk_sweeps PRIMARY KEY (id) )

CREATE INDEX ix_sweeps_created ON sweeps (created)

CREATE TABLE trials ( sweep TEXT NOT NULL, number INTEGER NOT NULL, model TEXT NOT NULL, target TEXT NOT NULL, settings_json TEXT NOT NULL, "key" TEXT NOT NULL, recipe TEXT NOT NULL, asked TEXT NOT NULL, build TEXT, error TEXT NOT NULL, CONSTRAINT pk_trials PRIMARY KEY (sweep, number), CONSTRAINT fk_trials_sweep FOREIGN KEY(sweep) REFERENCES sweeps (id) ON DELETE CASCADE )

CREATE TABLE counters ( name TEXT NOT NULL, field TEXT NOT NULL, value DOUBLE NOT NULL, CONSTRAINT pk_counters PRIMARY KEY (name, field) )

CREATE TABLE serving ( family TEXT NOT NULL, place TEXT NOT NULL, recipe TEXT NOT NULL, namespace TEXT NOT NULL, version TEXT NOT NULL, portable BOOLEAN NOT NULL, breadth INTEGER NOT NULL, CONSTRAINT pk_serving PRIMARY KEY (family, place, recipe, namespace), CONSTRAINT fk_serving_recipe FOREIGN KEY(recipe, namespace) REFERENCES engines (recipe, namespace) ON DELETE CASCADE )

CREATE INDEX ix_serving_recipe ON serving (recipe, namespace)

CREATE INDEX ix_engines_digest ON engines (digest, size)

CREATE INDEX ix_builds_due ON builds (capability, priority DESC, turn, created, number) WHERE state = 'queued'

CREATE INDEX ix_builds_tenant ON builds (tenant, flow) WHERE state = 'queued'

CREATE INDEX ix_engines_graph ON engines (graph, created)

CREATE TABLE nodes ( name TEXT NOT NULL, failures INTEGER DEFAULT '0' NOT NULL, aside_until DOUBLE, why TEXT DEFAULT '' NOT NULL, CONSTRAINT pk_nodes PRIMARY KEY (name) )

CREATE TABLE tried ( build TEXT NOT NULL, node TEXT NOT NULL, kind TEXT NOT NULL, CONSTRAINT pk_tried PRIMARY KEY (build, node), CONSTRAINT fk_tried_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE )

CREATE TABLE wakes ( capability TEXT NOT NULL, sent DOUBLE NOT NULL, CONSTRAINT pk_wakes PRIMARY KEY (capability) )

CREATE INDEX ix_engines_manifest ON engines (manifest)

CREATE INDEX ix_key_parts_outline ON key_parts (outline)

CREATE INDEX ix_forms_graph ON forms (graph)

CREATE INDEX ix_forms_data ON forms (data)

CREATE INDEX ix_forms_side ON forms (side)

CREATE TABLE notes ( name TEXT NOT NULL, value TEXT NOT NULL, CONSTRAINT pk_notes PRIMARY KEY (name) )

CREATE TABLE uses ( recipe TEXT NOT NULL, namespace TEXT NOT NULL, used DOUBLE NOT NULL, hits BIGINT NOT NULL, CONSTRAINT pk_uses PRIMARY KEY (recipe, namespace), CONSTRAINT fk_uses_recipe FOREIGN KEY(recipe, namespace) REFERENCES engines (recipe, namespace) ON DELETE CASCADE )

CREATE TABLE usage ( "key" TEXT NOT NULL, field TEXT NOT NULL, value DOUBLE NOT NULL, at DOUBLE NOT NULL, CONSTRAINT pk_usage PRIMARY KEY ("key", field) )

CREATE INDEX ix_usage_at ON usage (at)

CREATE INDEX ix_engines_build ON engines (build)

CREATE INDEX ix_trials_build ON trials (build)

CREATE TABLE pins ( name TEXT NOT NULL, recipe TEXT NOT NULL, namespace TEXT NOT NULL, digest TEXT NOT NULL, manifest TEXT NOT NULL, program TEXT NOT NULL, size BIGINT NOT NULL, created DOUBLE NOT NULL, expires DOUBLE, CONSTRAINT pk_pins PRIMARY KEY (name, recipe, namespace) )

CREATE INDEX ix_pins_digest ON pins (digest)

CREATE INDEX ix_pins_manifest ON pins (manifest)

CREATE INDEX ix_pins_recipe ON pins (recipe)

CREATE TABLE condemned ( blob TEXT NOT NULL, kind TEXT NOT NULL, size BIGINT NOT NULL, since DOUBLE NOT NULL, until DOUBLE NOT NULL, going BOOLEAN DEFAULT false NOT NULL, CONSTRAINT pk_condemned PRIMARY KEY (blob) )

CREATE INDEX ix_condemned_until ON condemned (until)

CREATE TABLE measurements ( id TEXT NOT NULL, subject TEXT NOT NULL, at DOUBLE NOT NULL, body_json TEXT NOT NULL, CONSTRAINT pk_measurements PRIMARY KEY (id) )

CREATE INDEX ix_measurements_subject ON measurements (subject, at)

CREATE TABLE measuring ( id TEXT NOT NULL, place TEXT NOT NULL, since DOUBLE NOT NULL, attempts INTEGER DEFAULT '0' NOT NULL, token BIGINT DEFAULT '0' NOT NULL, worker TEXT DEFAULT '' NOT NULL, lease_expires DOUBLE, failure TEXT DEFAULT '' NOT NULL, ask_json TEXT NOT NULL, CONSTRAINT pk_measuring PRIMARY KEY (id) )

CREATE INDEX ix_measuring_place ON measuring (place, since)

CREATE TABLE tokens ( id TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, scope TEXT NOT NULL, namespace TEXT NOT NULL, created DOUBLE NOT NULL, expires DOUBLE, used DOUBLE, CONSTRAINT pk_tokens PRIMARY KEY (id) )

CREATE UNIQUE INDEX uq_tokens_name ON tokens (name)

INSERT INTO notes (name, value) VALUES ('farm', lower(hex(randomblob(16))))

INSERT INTO alembic_version VALUES ('0009')
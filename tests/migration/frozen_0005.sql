BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE attempts (
	build TEXT NOT NULL, 
	token BIGINT NOT NULL, 
	number INTEGER NOT NULL, 
	worker TEXT NOT NULL, 
	started DOUBLE NOT NULL, 
	finished DOUBLE, 
	outcome TEXT DEFAULT '' NOT NULL, 
	message TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_attempts PRIMARY KEY (build, token), 
	CONSTRAINT fk_attempts_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
INSERT INTO "attempts" VALUES('bh7pjwu6yu2ki',1,1,'w1',1.79565776066260242467e+09,1.7956577606864762306e+09,'succeeded','');
INSERT INTO "attempts" VALUES('bjmcta2t4ookr',1,1,'w1',1.79565776071464371687e+09,1.79565776071907758711e+09,'permanent','cannot');
INSERT INTO "attempts" VALUES('bck2ertgj5673',1,1,'host:1:a',1.79565776073270893099e+09,NULL,'','');
CREATE TABLE builds (
	id TEXT NOT NULL, 
	namespace TEXT NOT NULL, 
	recipe TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	capability TEXT NOT NULL, 
	priority INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	number INTEGER NOT NULL, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	started DOUBLE, 
	finished DOUBLE, 
	not_before DOUBLE, 
	failure_kind TEXT, 
	failure_message TEXT, 
	failure_hint TEXT, 
	engine TEXT, 
	token BIGINT DEFAULT '0' NOT NULL, 
	worker TEXT, 
	lease_expires DOUBLE, 
	cancel_requested BOOLEAN DEFAULT false NOT NULL, 
	remembered BOOLEAN DEFAULT false NOT NULL, 
	phase TEXT DEFAULT '' NOT NULL, 
	progress DOUBLE, 
	log_size BIGINT DEFAULT '0' NOT NULL, 
	request_json TEXT NOT NULL, tenant TEXT DEFAULT '' NOT NULL, flow TEXT DEFAULT '' NOT NULL, turn DOUBLE DEFAULT '0' NOT NULL, memory BIGINT DEFAULT '0' NOT NULL, gpu_memory BIGINT DEFAULT '0' NOT NULL, node TEXT, 
	CONSTRAINT pk_builds PRIMARY KEY (id)
);
INSERT INTO "builds" VALUES('bh7pjwu6yu2ki','main','sha256:dd5e66305cb4bb0077587aedccd0d86f2a23c5cc31639f255a55bbd9d94010b7','sha256:bb92a723fa22ee24c71ecef39d0856a0fc769e5dd56a9013c25cf330174501a2','tensorrt_rtx-1.7.1.116-sm_89',0,'succeeded',1.79565776059681725504e+09,0,1,1.79565776066260242467e+09,1.7956577606864762306e+09,NULL,NULL,NULL,NULL,'sha256:efe2c3728e4d67cb035ca898fb35631d0f088814ad6958b09c3d0ac55cfe6187',1,'w1',NULL,0,0,'',NULL,8,'{"parts":{"graph":"sha256:92c7cab6e0b53658f800af55df6513fc2fe25fd1a119f7000cca44f429945c73","settings":{"disable_tf32":true}},"program":"sha256:ef9df80008ea8982d14c29324145760fc059ba5aaf9f72291df9aee19e48b8dd","toolchain":"tensorrt_rtx==1.7.1.116","namespace":"main","weights":"b3:w","memory":0,"model":"built.pt2","custom_ops":{},"target":"sm_89","tenant":"","told":{"disable_tf32":true,"workspace_size":0,"scale":0.1},"key":"sha256:bb92a723fa22ee24c71ecef39d0856a0fc769e5dd56a9013c25cf330174501a2","expected":0.0,"priority":0,"settings":{"disable_tf32":true},"flow":"","capability":"tensorrt_rtx-1.7.1.116-sm_89","gpu_memory":0,"profiles":[{"0":[[1,3],[2,3],[4,3]]}],"program_format":"pt2","recipe":"sha256:dd5e66305cb4bb0077587aedccd0d86f2a23c5cc31639f255a55bbd9d94010b7"}','','',0.0,0,0,'node-w1');
INSERT INTO "builds" VALUES('bjmcta2t4ookr','main','sha256:600b1915df4ed65b00a2cd71268d385de0eca2dda0714ab997d5b1314f76876f','sha256:5d95650eb8fc49719050e90bac2e48e180f3c2e1cf874f7f371fb91e8ec61b73','tensorrt_rtx-1.7.1.116-sm_89',0,'failed',1.79565776070219755176e+09,0,1,1.79565776071464371687e+09,1.79565776071907758711e+09,NULL,'permanent','cannot','try otherwise',NULL,1,'w1',NULL,0,1,'',NULL,0,'{"parts":{"graph":"sha256:0547ab89bca3cb4a7fdb506923a674fbfb54291a78fbd7233bb673096bea039f","settings":{"disable_tf32":true}},"program":"sha256:ef9df80008ea8982d14c29324145760fc059ba5aaf9f72291df9aee19e48b8dd","toolchain":"tensorrt_rtx==1.7.1.116","namespace":"main","weights":"b3:w","memory":0,"model":"failed.pt2","custom_ops":{},"target":"sm_89","tenant":"","told":{"disable_tf32":true,"workspace_size":0,"scale":0.1},"key":"sha256:5d95650eb8fc49719050e90bac2e48e180f3c2e1cf874f7f371fb91e8ec61b73","expected":0.0,"priority":0,"settings":{"disable_tf32":true},"flow":"","capability":"tensorrt_rtx-1.7.1.116-sm_89","gpu_memory":0,"profiles":[{"0":[[1,3],[2,3],[4,3]]}],"program_format":"pt2","recipe":"sha256:600b1915df4ed65b00a2cd71268d385de0eca2dda0714ab997d5b1314f76876f"}','','',0.0,0,0,'node-w1');
INSERT INTO "builds" VALUES('bck2ertgj5673','main','sha256:54cf47e8ca2002a489c735c8a8037a7580045142fb03e424a197eee1c271b346','sha256:07f0493b43a504d28df99667b0ff61660435226559f4c09b1a0817f297bebdea','tensorrt_rtx-1.7.1.116-sm_89',0,'running',1.79565776072217249872e+09,0,1,1.79565776073270893099e+09,NULL,NULL,NULL,NULL,NULL,NULL,1,'host:1:a',1.79566136073271131511e+09,0,0,'',NULL,0,'{"parts":{"graph":"sha256:9ea422a0fa5bef184e3352d7ba172a0150d71883f996b19eb0c93ae0fab8d252","settings":{"disable_tf32":true}},"program":"sha256:ef9df80008ea8982d14c29324145760fc059ba5aaf9f72291df9aee19e48b8dd","toolchain":"tensorrt_rtx==1.7.1.116","namespace":"main","weights":"b3:w","memory":0,"model":"running.pt2","custom_ops":{},"target":"sm_89","tenant":"","told":{"disable_tf32":true,"workspace_size":0,"scale":0.1},"key":"sha256:07f0493b43a504d28df99667b0ff61660435226559f4c09b1a0817f297bebdea","expected":0.0,"priority":0,"settings":{"disable_tf32":true},"flow":"","capability":"tensorrt_rtx-1.7.1.116-sm_89","gpu_memory":0,"profiles":[{"0":[[1,3],[2,3],[4,3]]}],"program_format":"pt2","recipe":"sha256:54cf47e8ca2002a489c735c8a8037a7580045142fb03e424a197eee1c271b346"}','','',0.0,0,0,'node-host:1:a');
INSERT INTO "builds" VALUES('bdyvdfqgicvz6','main','sha256:d726458373d3b90210377fb2a7d2009110d332410f133c3e741d027abd6c77f6','sha256:a901fbef55f0585a5619c1f47476930cc5992df1fb3c715f554fcfb5e8a556e6','tensorrt_rtx-1.7.1.116-sm_89',0,'queued',1.79565776073573660849e+09,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,0,0,'',NULL,0,'{"parts":{"graph":"sha256:bc2d75172c2cba48ea2e1a5a9a340be4645590f8c832161098ea238737698f20","settings":{"disable_tf32":true}},"program":"sha256:ef9df80008ea8982d14c29324145760fc059ba5aaf9f72291df9aee19e48b8dd","toolchain":"tensorrt_rtx==1.7.1.116","namespace":"main","weights":"b3:w","memory":0,"model":"queued.pt2","custom_ops":{},"target":"sm_89","tenant":"","told":{"disable_tf32":true,"workspace_size":0,"scale":0.1},"key":"sha256:a901fbef55f0585a5619c1f47476930cc5992df1fb3c715f554fcfb5e8a556e6","expected":0.0,"priority":0,"settings":{"disable_tf32":true},"flow":"","capability":"tensorrt_rtx-1.7.1.116-sm_89","gpu_memory":0,"profiles":[{"0":[[1,3],[2,3],[4,3]]}],"program_format":"pt2","recipe":"sha256:d726458373d3b90210377fb2a7d2009110d332410f133c3e741d027abd6c77f6"}','','',0.0,0,0,NULL);
CREATE TABLE counters (
	name TEXT NOT NULL, 
	field TEXT NOT NULL, 
	value DOUBLE NOT NULL, 
	CONSTRAINT pk_counters PRIMARY KEY (name, field)
);
INSERT INTO "counters" VALUES('hit','n',2.0);
INSERT INTO "counters" VALUES('hit','seconds',1.5);
CREATE TABLE engines (
	recipe TEXT NOT NULL, 
	namespace TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	weights TEXT NOT NULL, 
	build TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	build_seconds DOUBLE NOT NULL, 
	manifest_json TEXT NOT NULL, graph TEXT DEFAULT '' NOT NULL, capability TEXT DEFAULT '' NOT NULL, manifest TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_engines PRIMARY KEY (recipe, namespace)
);
INSERT INTO "engines" VALUES('sha256:dd5e66305cb4bb0077587aedccd0d86f2a23c5cc31639f255a55bbd9d94010b7','main','sha256:bb92a723fa22ee24c71ecef39d0856a0fc769e5dd56a9013c25cf330174501a2','sha256:efe2c3728e4d67cb035ca898fb35631d0f088814ad6958b09c3d0ac55cfe6187',1000,'b3:w','bh7pjwu6yu2ki',1.7956577606864762306e+09,1.5,'{"model":"built.pt2","n":[1,2.5,null,true]}','sha256:92c7cab6e0b53658f800af55df6513fc2fe25fd1a119f7000cca44f429945c73','tensorrt_rtx-1.7.1.116-sm_89','');
CREATE TABLE events (
	id INTEGER NOT NULL, 
	build TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	kind TEXT NOT NULL, 
	detail_json TEXT NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (id), 
	CONSTRAINT fk_events_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
INSERT INTO "events" VALUES(1,'bh7pjwu6yu2ki',1.79565776059681725504e+09,'queued','{}');
INSERT INTO "events" VALUES(2,'bh7pjwu6yu2ki',1.79565776066260242467e+09,'leased','{"worker":"w1","attempt":1}');
INSERT INTO "events" VALUES(3,'bh7pjwu6yu2ki',1.7956577606864762306e+09,'succeeded','{"engine":"sha256:efe2c3728e4d67cb035ca898fb35631d0f088814ad6958b09c3d0ac55cfe6187","worker":"w1"}');
INSERT INTO "events" VALUES(4,'bjmcta2t4ookr',1.79565776070219755176e+09,'queued','{}');
INSERT INTO "events" VALUES(5,'bjmcta2t4ookr',1.79565776071464371687e+09,'leased','{"worker":"w1","attempt":1}');
INSERT INTO "events" VALUES(6,'bjmcta2t4ookr',1.79565776071907758711e+09,'failed','{"kind":"permanent","message":"cannot","worker":"w1","retry_in":null}');
INSERT INTO "events" VALUES(7,'bck2ertgj5673',1.79565776072217249872e+09,'queued','{}');
INSERT INTO "events" VALUES(8,'bck2ertgj5673',1.79565776073270893099e+09,'leased','{"worker":"host:1:a","attempt":1}');
INSERT INTO "events" VALUES(9,'bdyvdfqgicvz6',1.79565776073573660849e+09,'queued','{}');
CREATE TABLE forms (
	program TEXT NOT NULL, 
	exporter TEXT NOT NULL, 
	graph TEXT NOT NULL, 
	data TEXT, 
	detail_json TEXT NOT NULL, 
	created DOUBLE NOT NULL, side TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_forms PRIMARY KEY (program, exporter)
);
INSERT INTO "forms" VALUES('sha256:p','torch 2.13','sha256:o',NULL,'{"graph":"m.onnx"}',1.79565776058025526997e+09,'');
CREATE TABLE key_parts (
	"key" TEXT NOT NULL, 
	recipe TEXT NOT NULL, 
	graph TEXT NOT NULL, 
	model TEXT NOT NULL, 
	target TEXT NOT NULL, 
	recorded DOUBLE NOT NULL, 
	parts_json TEXT NOT NULL, outline TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_key_parts PRIMARY KEY ("key", recipe)
);
INSERT INTO "key_parts" VALUES('sha256:6f16d22665b7538cca183379d511db7aa5c5bd804a6d90c711b712092258b97c','sha256:b89c5453d8e72ec089163260869838ea878b55269a51e69f8ee6afdfd962f76c','sha256:49d056d6c5904faa181b943572ffcc4014798079f75a944b3eb8b3c4adb008d7','unbuilt.pt2','sm_89',1.79565776059540510179e+09,'{"graph":"sha256:49d056d6c5904faa181b943572ffcc4014798079f75a944b3eb8b3c4adb008d7","settings":{"disable_tf32":true}}','');
INSERT INTO "key_parts" VALUES('sha256:bb92a723fa22ee24c71ecef39d0856a0fc769e5dd56a9013c25cf330174501a2','sha256:dd5e66305cb4bb0077587aedccd0d86f2a23c5cc31639f255a55bbd9d94010b7','sha256:92c7cab6e0b53658f800af55df6513fc2fe25fd1a119f7000cca44f429945c73','built.pt2','sm_89',1.7956577606864762306e+09,'{"graph":"sha256:92c7cab6e0b53658f800af55df6513fc2fe25fd1a119f7000cca44f429945c73","settings":{"disable_tf32":true}}','');
CREATE TABLE log_chunks (
	build TEXT NOT NULL, 
	ends BIGINT NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_log_chunks PRIMARY KEY (build, ends), 
	CONSTRAINT fk_log_chunks_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
INSERT INTO "log_chunks" VALUES('bh7pjwu6yu2ki',8,'the log
');
CREATE TABLE nodes (
	name TEXT NOT NULL, 
	failures INTEGER DEFAULT '0' NOT NULL, 
	aside_until DOUBLE, 
	why TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_nodes PRIMARY KEY (name)
);
CREATE TABLE notes (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_notes PRIMARY KEY (name)
);
INSERT INTO "notes" VALUES('farm','674fed75924b4fb699a1d80d587293d0');
INSERT INTO "notes" VALUES('store','frozen');
CREATE TABLE programs (
	digest TEXT NOT NULL, 
	name TEXT NOT NULL, 
	format TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	graph TEXT NOT NULL, 
	weights TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_programs PRIMARY KEY (digest)
);
INSERT INTO "programs" VALUES('sha256:p','a.pt2','pt2',10,'sha256:g','b3:w',1.79565776057798457149e+09);
CREATE TABLE serving (
	family TEXT NOT NULL, 
	place TEXT NOT NULL, 
	recipe TEXT NOT NULL, 
	namespace TEXT NOT NULL, 
	version TEXT NOT NULL, 
	portable BOOLEAN NOT NULL, 
	breadth INTEGER NOT NULL, 
	CONSTRAINT pk_serving PRIMARY KEY (family, place, recipe, namespace), 
	CONSTRAINT fk_serving_recipe FOREIGN KEY(recipe, namespace) REFERENCES engines (recipe, namespace) ON DELETE CASCADE
);
CREATE TABLE sweeps (
	id TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	spec_json TEXT NOT NULL, 
	cancelled BOOLEAN DEFAULT false NOT NULL, 
	CONSTRAINT pk_sweeps PRIMARY KEY (id)
);
INSERT INTO "sweeps" VALUES('sfrozen',1.79565776073661446574e+09,'{"grid":{}}',0);
CREATE TABLE trials (
	sweep TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	model TEXT NOT NULL, 
	target TEXT NOT NULL, 
	settings_json TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	recipe TEXT NOT NULL, 
	asked TEXT NOT NULL, 
	build TEXT, 
	error TEXT NOT NULL, 
	CONSTRAINT pk_trials PRIMARY KEY (sweep, number), 
	CONSTRAINT fk_trials_sweep FOREIGN KEY(sweep) REFERENCES sweeps (id) ON DELETE CASCADE
);
INSERT INTO "trials" VALUES('sfrozen',0,'a.pt2','sm_89','{"optimization_level":3}','sha256:k','sha256:r','new','bdyvdfqgicvz6','');
CREATE TABLE tried (
	build TEXT NOT NULL, 
	node TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	CONSTRAINT pk_tried PRIMARY KEY (build, node), 
	CONSTRAINT fk_tried_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
CREATE TABLE waiters (
	build TEXT NOT NULL, 
	waiter TEXT NOT NULL, 
	since DOUBLE NOT NULL, 
	CONSTRAINT pk_waiters PRIMARY KEY (build, waiter), 
	CONSTRAINT fk_waiters_build FOREIGN KEY(build) REFERENCES builds (id) ON DELETE CASCADE
);
INSERT INTO "waiters" VALUES('bh7pjwu6yu2ki','me',1.79565776059681725504e+09);
INSERT INTO "waiters" VALUES('bjmcta2t4ookr','me',1.79565776070219755176e+09);
INSERT INTO "waiters" VALUES('bck2ertgj5673','me',1.79565776072217249872e+09);
INSERT INTO "waiters" VALUES('bdyvdfqgicvz6','me',1.79565776073573660849e+09);
CREATE TABLE wakes (
	capability TEXT NOT NULL, 
	sent DOUBLE NOT NULL, 
	CONSTRAINT pk_wakes PRIMARY KEY (capability)
);
CREATE TABLE workers (
	id TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid BIGINT NOT NULL, 
	born DOUBLE NOT NULL, 
	capabilities_json TEXT NOT NULL, 
	detail_json TEXT NOT NULL, 
	seen DOUBLE NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (id)
);
INSERT INTO "workers" VALUES('host:1:a','host',1,5.0,'["c"]','{"cores":2}',1.79565776055601763723e+09);
CREATE INDEX ix_engines_created ON engines (created);
CREATE INDEX ix_engines_key ON engines ("key");
CREATE INDEX ix_key_parts_graph ON key_parts (graph, recorded);
CREATE INDEX ix_key_parts_recipe ON key_parts (recipe);
CREATE INDEX ix_key_parts_recorded ON key_parts (recorded);
CREATE INDEX ix_builds_created ON builds (created, number, state);
CREATE INDEX ix_builds_remembered ON builds (namespace, recipe) WHERE remembered = 1;
CREATE INDEX ix_builds_running ON builds (id, lease_expires, worker) WHERE state = 'running';
CREATE UNIQUE INDEX uq_builds_active ON builds (namespace, recipe) WHERE state IN ('queued', 'running');
CREATE INDEX ix_waiters_waiter ON waiters (waiter);
CREATE INDEX ix_events_build ON events (build, id);
CREATE INDEX ix_programs_created ON programs (created);
CREATE INDEX ix_sweeps_created ON sweeps (created);
CREATE INDEX ix_serving_recipe ON serving (recipe, namespace);
CREATE INDEX ix_engines_digest ON engines (digest, size);
CREATE INDEX ix_builds_due ON builds (capability, priority DESC, turn, created, number) WHERE state = 'queued';
CREATE INDEX ix_builds_tenant ON builds (tenant, flow) WHERE state = 'queued';
CREATE INDEX ix_engines_graph ON engines (graph, created);
CREATE INDEX ix_engines_manifest ON engines (manifest);
CREATE INDEX ix_key_parts_outline ON key_parts (outline);
CREATE INDEX ix_forms_graph ON forms (graph);
CREATE INDEX ix_forms_data ON forms (data);
CREATE INDEX ix_forms_side ON forms (side);
COMMIT;

BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'metahp','m001_first_tables','2026-11-30 19:16:18.632091+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'metahp','m002_indexes_and_compactions','2026-11-30 19:16:18.632269+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'metahp','m003_batch_size_is_per_device','2026-11-30 19:16:18.632287+00:00');
CREATE TABLE compactions (
    run_id TEXT NOT NULL,
    compacted_utc TEXT NOT NULL,
    method TEXT NOT NULL,
    points INTEGER NOT NULL,
    rows_before INTEGER NOT NULL,
    rows_after INTEGER NOT NULL,
    PRIMARY KEY (run_id, compacted_utc)
) WITHOUT ROWID
;
INSERT INTO "compactions" VALUES('261130-191618652-ee291555','2025-01-01T00:00:00.000000Z','shape',10,20,10);
CREATE TABLE "hparams" (
   "run_id" TEXT,
   "name" TEXT,
   "raw_name" TEXT NOT NULL,
   "value_json" TEXT NOT NULL,
   "source" TEXT NOT NULL,
   "requested_json" TEXT,
   "observed_json" TEXT,
   PRIMARY KEY ("run_id", "name")
);
INSERT INTO "hparams" VALUES('261130-191618652-ee291555','learning_rate','lr','0.1','user',NULL,'0.05');
INSERT INTO "hparams" VALUES('261130-191618652-ee291555','betas','betas','{"$type":"tuple","value":[0.9,0.999]}','user',NULL,NULL);
INSERT INTO "hparams" VALUES('261130-191618652-ee291555','clip','clip','{"$type":"float","value":"inf"}','default',NULL,NULL);
INSERT INTO "hparams" VALUES('261130-191618652-ee291555','big','big','1180591620717411303424','user',NULL,NULL);
CREATE TABLE metrics (
    run_id TEXT NOT NULL,
    name TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    epoch REAL,
    value REAL,
    kind TEXT NOT NULL CHECK (kind IN ('finite', 'nan', 'inf', '-inf')),
    elapsed_s REAL,
    PRIMARY KEY (run_id, name, attempt, step)
) WITHOUT ROWID
;
INSERT INTO "metrics" VALUES('261130-191618652-ee291555','loss',0,1,1.0,1.0,'finite',5.32183750001422595232e-02);
INSERT INTO "metrics" VALUES('261130-191618652-ee291555','val_acc',0,1,1.0,0.5,'finite',5.32183750001422595232e-02);
INSERT INTO "metrics" VALUES('261130-191618736-bb17e190','val_acc',1,2,NULL,NULL,'nan',5.12765000166837126016e-04);
CREATE TABLE "models" (
   "id" TEXT PRIMARY KEY,
   "created_utc" TEXT,
   "kind" TEXT,
   "file" TEXT,
   "n_runs" INTEGER,
   "n_tasks" INTEGER,
   "info_json" TEXT
);
INSERT INTO "models" VALUES('m1','2026-11-30T19:16:18.769331Z','gp','m1',2,1,'{}');
CREATE TABLE "recommendations" (
   "id" TEXT PRIMARY KEY,
   "created_utc" TEXT,
   "task_id" TEXT,
   "decision" TEXT,
   "recommendation_json" TEXT,
   "current_json" TEXT,
   "changes_json" TEXT
);
INSERT INTO "recommendations" VALUES('r1','2026-11-30T19:16:18.747775Z',NULL,NULL,'{"id":"r1","config":{"lr":0.1}}','{}','[]');
CREATE TABLE "resources" (
   "run_id" TEXT,
   "name" TEXT,
   "device" TEXT,
   "elapsed_s" REAL,
   "value" REAL,
   PRIMARY KEY ("run_id", "name", "device", "elapsed_s")
);
INSERT INTO "resources" VALUES('261130-191618652-ee291555','memory_bytes','process',8.88502690004315809346e-02,28372992.0);
INSERT INTO "resources" VALUES('261130-191618652-ee291555','memory_bytes','machine',8.88502690004315809346e-02,7788310528.0);
INSERT INTO "resources" VALUES('261130-191618652-ee291555','cpu_time_s','process',8.88502690004315809346e-02,0.0);
INSERT INTO "resources" VALUES('261130-191618652-ee291555','gpu_power_w','gpu0',5.0,250.5);
CREATE TABLE "runs" (
   "id" TEXT PRIMARY KEY,
   "task_id" TEXT NOT NULL,
   "original_task_id" TEXT,
   "status" TEXT NOT NULL,
   "objective" TEXT,
   "direction" TEXT,
   "objective_best" REAL,
   "objective_best_kind" TEXT,
   "objective_best_step" INTEGER,
   "objective_last" REAL,
   "objective_last_kind" TEXT,
   "objective_last_step" INTEGER,
   "epochs_reached" REAL,
   "steps_reached" INTEGER,
   "started_utc" TEXT NOT NULL,
   "ended_utc" TEXT,
   "heartbeat_utc" TEXT,
   "wall_s" REAL,
   "cpu_s" REAL,
   "gpu_s" REAL,
   "peak_memory_bytes" INTEGER,
   "peak_gpu_memory_bytes" INTEGER,
   "framework" TEXT,
   "model_class" TEXT,
   "model_family" TEXT,
   "n_parameters" INTEGER,
   "variant" TEXT,
   "error" TEXT,
   "git_commit" TEXT,
   "recommendation_id" TEXT,
   "parent_run_id" TEXT,
   "attempt" INTEGER,
   "host_hash" TEXT,
   "pid" INTEGER,
   "versions_json" TEXT,
   "description_json" TEXT,
   "revision" INTEGER,
   "hparams_revision" INTEGER
);
INSERT INTO "runs" VALUES('261130-191618652-ee291555','tefd7bdb5bad101f0','tefd7bdb5bad101f0','completed','val_acc','max',0.5,'finite',1,0.5,'finite',1,1.0,1,'2026-11-30T19:16:18.652129Z','2026-11-30T19:16:18.735356Z','2026-11-30T19:16:18.735429Z',0.0832539020002514,2.0395082999999980533e-02,NULL,28295168,NULL,'python',NULL,NULL,NULL,NULL,NULL,'d2a5290d074845f1a8a27789e67ef52f0eccedca',NULL,NULL,0,'6f4e02f5133421ec',7367,'{"python":"3.11.7","platform":"linux","metahp":"0.1.0","torch":"2.13.0+cpu","lightning":"2.6.6","transformers":"5.23.0","numpy":"2.4.6"}',NULL,3,2);
INSERT INTO "runs" VALUES('261130-191618736-bb17e190','tefd7bdb5bad101f0','tefd7bdb5bad101f0','diverged','val_acc','max',NULL,NULL,NULL,NULL,'nan',2,NULL,2,'2026-11-30T19:16:18.736233Z','2026-11-30T19:16:18.747189Z','2026-11-30T19:16:18.747293Z',1.10009179998087347485e-02,2.75844299999999931216e-03,NULL,28557312,NULL,'python',NULL,NULL,NULL,NULL,NULL,'d2a5290d074845f1a8a27789e67ef52f0eccedca','r1','261130-191618652-ee291555',1,'6f4e02f5133421ec',7367,'{"python":"3.11.7","platform":"linux","metahp":"0.1.0","torch":"2.13.0+cpu","lightning":"2.6.6","transformers":"5.23.0","numpy":"2.4.6"}',NULL,3,1);
CREATE TABLE "tasks" (
   "id" TEXT PRIMARY KEY,
   "name" TEXT NOT NULL,
   "is_named" INTEGER NOT NULL,
   "objective" TEXT,
   "direction" TEXT,
   "identity_json" TEXT NOT NULL,
   "description_json" TEXT,
   "created_utc" TEXT,
   "merged_into" TEXT
);
INSERT INTO "tasks" VALUES('tefd7bdb5bad101f0','digits',1,'val_acc','max','{"name":"digits"}',NULL,'2026-11-30T19:16:18.678074Z',NULL);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX "idx_runs_recommendation_id"
    ON "runs" ("recommendation_id");
CREATE INDEX idx_runs_by_task ON runs (task_id, status, revision, started_utc);
CREATE INDEX idx_runs_by_outcome ON runs (task_id, objective, direction, objective_best, id, status);
CREATE INDEX idx_tasks_by_name ON tasks (name);
COMMIT;
PRAGMA application_id = 1296389192;
PRAGMA user_version = 3;

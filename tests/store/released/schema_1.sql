BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'metahp','m001_first_tables','2026-11-22 16:49:19.272985+00:00');
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
INSERT INTO "hparams" VALUES('261122-164919274-95c8cb58','learning_rate','lr','0.1','user',NULL,'0.05');
INSERT INTO "hparams" VALUES('261122-164919274-95c8cb58','betas','betas','{"$type":"tuple","value":[0.9,0.999]}','user',NULL,NULL);
INSERT INTO "hparams" VALUES('261122-164919274-95c8cb58','clip','clip','{"$type":"float","value":"inf"}','default',NULL,NULL);
INSERT INTO "hparams" VALUES('261122-164919274-95c8cb58','big','big','1180591620717411303424','user',NULL,NULL);
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
INSERT INTO "metrics" VALUES('261122-164919274-95c8cb58','loss',0,1,1.0,1.0,'finite',1.18631870000172057189e-02);
INSERT INTO "metrics" VALUES('261122-164919274-95c8cb58','val_acc',0,1,1.0,0.5,'finite',1.18631870000172057189e-02);
INSERT INTO "metrics" VALUES('261122-164919288-a60dfee1','val_acc',1,2,NULL,NULL,'nan',1.95819399959873408079e-03);
CREATE TABLE "models" (
   "id" TEXT PRIMARY KEY,
   "created_utc" TEXT,
   "kind" TEXT,
   "file" TEXT,
   "n_runs" INTEGER,
   "n_tasks" INTEGER,
   "info_json" TEXT
);
INSERT INTO "models" VALUES('m1','2026-11-22T16:49:19.291556Z','gp','m1',2,1,'{}');
CREATE TABLE "recommendations" (
   "id" TEXT PRIMARY KEY,
   "created_utc" TEXT,
   "task_id" TEXT,
   "decision" TEXT,
   "recommendation_json" TEXT,
   "current_json" TEXT,
   "changes_json" TEXT
);
INSERT INTO "recommendations" VALUES('r1','2026-11-22T16:49:19.291217Z',NULL,NULL,'{"id":"r1","config":{"lr":0.1}}','{}','[]');
CREATE TABLE "resources" (
   "run_id" TEXT,
   "name" TEXT,
   "device" TEXT,
   "elapsed_s" REAL,
   "value" REAL,
   PRIMARY KEY ("run_id", "name", "device", "elapsed_s")
);
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
INSERT INTO "runs" VALUES('261122-164919274-95c8cb58','tefd7bdb5bad101f0','tefd7bdb5bad101f0','completed','val_acc','max',0.5,'finite',1,0.5,'finite',1,1.0,1,'2026-11-22T16:49:19.274796Z','2026-11-22T16:49:19.286950Z','2026-11-22T16:49:19.287538Z',1.21930329996757791377e-02,1.2190222000000083824e-02,NULL,112824320,NULL,'python',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'984ce4a588927810',15155,'{"python":"3.11.7","platform":"linux","torch":"2.13.0+cpu","lightning":"2.6.6","transformers":"5.23.0","numpy":"2.4.6"}',NULL,3,2);
INSERT INTO "runs" VALUES('261122-164919288-a60dfee1','tefd7bdb5bad101f0','tefd7bdb5bad101f0','diverged','val_acc','max',NULL,NULL,NULL,NULL,'nan',2,NULL,2,'2026-11-22T16:49:19.288686Z','2026-11-22T16:49:19.290762Z','2026-11-22T16:49:19.290823Z',0.00209800299944618,2.09661799999993903043e-03,NULL,113086464,NULL,'python',NULL,NULL,NULL,NULL,NULL,NULL,'r1','261122-164919274-95c8cb58',1,'984ce4a588927810',15155,'{"python":"3.11.7","platform":"linux","torch":"2.13.0+cpu","lightning":"2.6.6","transformers":"5.23.0","numpy":"2.4.6"}',NULL,3,1);
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
INSERT INTO "tasks" VALUES('tefd7bdb5bad101f0','digits',1,'val_acc','max','{"name":"digits"}',NULL,'2026-11-22T16:49:19.284003Z',NULL);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX "idx_runs_task_id_status"
    ON "runs" ("task_id", "status");
CREATE INDEX "idx_runs_recommendation_id"
    ON "runs" ("recommendation_id");
COMMIT;
PRAGMA application_id = 1296389192;
PRAGMA user_version = 1;

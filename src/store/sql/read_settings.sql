-- The settings of the connections that read.
--
-- The plan of a statement must not depend on the size of the tables at the time at which it was prepared. With custom
-- plans a load takes twelve times as long with 120 partitions as with one. Compiling a statement (JIT) takes longer
-- than any of these statements runs; before version 18 PostgreSQL compiles every statement that scans a table, because
-- enable_seqscan = off adds a very high cost to it.
--
-- The rows are stored in the order of their positions, and the indexes that find events by a type or by an id are in
-- that order within each of them. So every scan reads pages that are next to each other. With the usual costs of a page,
-- PostgreSQL assumes the opposite for these indexes, and reads the events of one type in a hundred by reading all.
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET seq_page_cost = 0.1;
SET random_page_cost = 0.1;
SET default_transaction_isolation = 'read committed';
SET statement_timeout = '30s';

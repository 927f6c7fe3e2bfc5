-- The tables for DuckDB, read below the current directory: of each store all its days
-- (TABLE_of_all_days), and its latest day.
CREATE VIEW images_of_all_days AS
SELECT * FROM read_parquet('*/*/images.parquet', hive_partitioning = true,
                           hive_types = {'store': VARCHAR, 'day': DATE});
CREATE VIEW names_of_all_days AS
SELECT * FROM read_parquet('*/*/names.parquet', hive_partitioning = true,
                           hive_types = {'store': VARCHAR, 'day': DATE});
CREATE VIEW image_layers_of_all_days AS
SELECT * FROM read_parquet('*/*/image_layers.parquet', hive_partitioning = true,
                           hive_types = {'store': VARCHAR, 'day': DATE});
CREATE VIEW history_of_all_days AS
SELECT * FROM read_parquet('*/*/history.parquet', hive_partitioning = true,
                           hive_types = {'store': VARCHAR, 'day': DATE});
CREATE VIEW layers_of_all_days AS
SELECT * FROM read_parquet('*/*/layers.parquet', hive_partitioning = true,
                           hive_types = {'store': VARCHAR, 'day': DATE});
CREATE VIEW entries_of_all_days AS
SELECT * FROM read_parquet('*/*/entries.parquet', hive_partitioning = true,
                           hive_types = {'store': VARCHAR, 'day': DATE});
CREATE VIEW contents_of_all_days AS
SELECT * FROM read_parquet('*/*/contents.parquet', hive_partitioning = true,
                           hive_types = {'store': VARCHAR, 'day': DATE});
CREATE VIEW latest AS
SELECT store, max(day) AS day FROM layers_of_all_days GROUP BY store;
CREATE VIEW images AS
SELECT f.* FROM images_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW names AS
SELECT f.* FROM names_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW image_layers AS
SELECT f.* FROM image_layers_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW history AS
SELECT f.* FROM history_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW layers AS
SELECT f.* FROM layers_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW entries AS
SELECT f.* FROM entries_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW contents AS
SELECT f.* FROM contents_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
-- What each layer holds. A layer is the same on every host, so one host's rows of it are read.
CREATE VIEW held AS
SELECT f.diff_id, f.digest, max(f.size) AS size, count(*) AS names
FROM entries_of_all_days AS f
JOIN (SELECT diff_id, min(store) AS store FROM layers GROUP BY diff_id) AS one
    ON one.diff_id = f.diff_id AND one.store = f.store
JOIN latest ON latest.store = f.store AND latest.day = f.day
WHERE f.digest IS NOT NULL
GROUP BY f.diff_id, f.digest;
-- Contents that the same layers hold are one group: their number, their bytes, and its layers, a
-- row each. There are hardly more groups than layers, and so questions about what images or stores
-- hold go over few rows. A group is called by its first content.
CREATE VIEW layer_groups AS
WITH
held_once AS (SELECT * FROM held),
ranked AS (
    SELECT diff_id, row_number() OVER (ORDER BY diff_id) AS place
    FROM (SELECT DISTINCT diff_id FROM layers) AS each_layer
),
holders AS (
    SELECT held_once.digest, max(held_once.size) AS size,
           array_sort(array_agg(ranked.place)) AS places
    FROM held_once JOIN ranked ON ranked.diff_id = held_once.diff_id
    GROUP BY held_once.digest
),
groups_of_contents AS (
    SELECT min(digest) AS content_group, count(*) AS files, sum(size) AS bytes
    FROM holders GROUP BY places
)
SELECT groups_of_contents.content_group, groups_of_contents.files, groups_of_contents.bytes,
       held_once.diff_id
FROM groups_of_contents JOIN held_once ON held_once.digest = groups_of_contents.content_group;

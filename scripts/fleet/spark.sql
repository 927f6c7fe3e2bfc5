-- The tables for Spark SQL, read below the directory that ${facts} names (spark-sql
-- --hivevar facts=/srv/facts): of each store its latest day.
CREATE TEMPORARY VIEW images_of_all_days USING parquet
OPTIONS (path '${facts}/*/*/images.parquet', basePath '${facts}');
CREATE TEMPORARY VIEW names_of_all_days USING parquet
OPTIONS (path '${facts}/*/*/names.parquet', basePath '${facts}');
CREATE TEMPORARY VIEW image_layers_of_all_days USING parquet
OPTIONS (path '${facts}/*/*/image_layers.parquet', basePath '${facts}');
CREATE TEMPORARY VIEW history_of_all_days USING parquet
OPTIONS (path '${facts}/*/*/history.parquet', basePath '${facts}');
CREATE TEMPORARY VIEW layers_of_all_days USING parquet
OPTIONS (path '${facts}/*/*/layers.parquet', basePath '${facts}');
CREATE TEMPORARY VIEW entries_of_all_days USING parquet
OPTIONS (path '${facts}/*/*/entries.parquet', basePath '${facts}');
CREATE TEMPORARY VIEW contents_of_all_days USING parquet
OPTIONS (path '${facts}/*/*/contents.parquet', basePath '${facts}');
CREATE TEMPORARY VIEW latest AS
SELECT store, max(day) AS day FROM layers_of_all_days GROUP BY store;
CREATE TEMPORARY VIEW images AS
SELECT f.* FROM images_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE TEMPORARY VIEW names AS
SELECT f.* FROM names_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE TEMPORARY VIEW image_layers AS
SELECT f.* FROM image_layers_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE TEMPORARY VIEW history AS
SELECT f.* FROM history_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE TEMPORARY VIEW layers AS
SELECT f.* FROM layers_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE TEMPORARY VIEW entries AS
SELECT f.* FROM entries_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE TEMPORARY VIEW contents AS
SELECT f.* FROM contents_of_all_days AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
-- What each layer holds. A layer is the same on every host, so one host's rows of it are read.
CREATE TEMPORARY VIEW held AS
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
CREATE TEMPORARY VIEW layer_groups AS
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

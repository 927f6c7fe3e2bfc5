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

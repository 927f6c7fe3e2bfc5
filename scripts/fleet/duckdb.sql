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

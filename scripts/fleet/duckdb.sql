-- The tables for DuckDB, read below the current directory: of each store its latest day.
CREATE VIEW latest AS
SELECT store, max(day) AS day
FROM read_parquet('*/*/layers.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE})
GROUP BY store;
CREATE VIEW images AS
SELECT f.*
FROM read_parquet('*/*/images.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE}) AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW names AS
SELECT f.*
FROM read_parquet('*/*/names.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE}) AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW image_layers AS
SELECT f.*
FROM read_parquet('*/*/image_layers.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE}) AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW history AS
SELECT f.*
FROM read_parquet('*/*/history.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE}) AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW layers AS
SELECT f.*
FROM read_parquet('*/*/layers.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE}) AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW entries AS
SELECT f.*
FROM read_parquet('*/*/entries.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE}) AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;
CREATE VIEW contents AS
SELECT f.*
FROM read_parquet('*/*/contents.parquet', hive_partitioning = true,
                  hive_types = {'store': VARCHAR, 'day': DATE}) AS f
JOIN latest ON latest.store = f.store AND latest.day = f.day;

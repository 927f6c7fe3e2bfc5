-- What each store has gained and lost between two days: images, layers, and bytes of contents.
-- Asked of all days (the tables of `latest` have one), and before:
--   CREATE TEMPORARY VIEW asked_days AS
--   SELECT DATE '2026-01-30' AS old_day, DATE '2026-01-31' AS new_day;
WITH
days AS (
    SELECT store, day, CASE WHEN day = asked_days.new_day THEN 1 ELSE 0 END AS is_new
    FROM (SELECT DISTINCT store, day FROM layers_of_all_days) AS found
    JOIN asked_days ON found.day = asked_days.old_day OR found.day = asked_days.new_day
),
-- A store that wrote nothing on one of the days has neither grown nor shrunk.
on_both AS (SELECT store FROM days GROUP BY store HAVING count(*) = 2),
of_contents AS (
    SELECT f.store, f.digest, max(f.size) AS size, max(days.is_new) AS is_new,
           min(days.is_new) AS only_new
    FROM contents_of_all_days AS f
    JOIN days ON days.store = f.store AND days.day = f.day
    JOIN on_both ON on_both.store = f.store
    GROUP BY f.store, f.digest
),
of_layers AS (
    SELECT f.store, f.diff_id, max(days.is_new) AS is_new, min(days.is_new) AS only_new
    FROM layers_of_all_days AS f
    JOIN days ON days.store = f.store AND days.day = f.day
    JOIN on_both ON on_both.store = f.store
    GROUP BY f.store, f.diff_id
),
of_images AS (
    SELECT f.store, f.image, max(days.is_new) AS is_new, min(days.is_new) AS only_new
    FROM images_of_all_days AS f
    JOIN days ON days.store = f.store AND days.day = f.day
    JOIN on_both ON on_both.store = f.store
    GROUP BY f.store, f.image
),
contents_sums AS (
    SELECT store,
           sum(CASE WHEN only_new = 0 THEN size ELSE 0 END) AS bytes_before,
           sum(CASE WHEN only_new = 1 THEN size ELSE 0 END) AS bytes_new,
           sum(CASE WHEN is_new = 0 THEN size ELSE 0 END) AS bytes_gone
    FROM of_contents GROUP BY store
),
layer_sums AS (
    SELECT store, sum(only_new) AS layers_new, sum(1 - is_new) AS layers_gone
    FROM of_layers GROUP BY store
),
image_sums AS (
    SELECT store, sum(only_new) AS images_new, sum(1 - is_new) AS images_gone
    FROM of_images GROUP BY store
)
SELECT on_both.store,
       coalesce(image_sums.images_new, 0) AS images_new,
       coalesce(image_sums.images_gone, 0) AS images_gone,
       coalesce(layer_sums.layers_new, 0) AS layers_new,
       coalesce(layer_sums.layers_gone, 0) AS layers_gone,
       coalesce(contents_sums.bytes_before, 0) AS bytes_before,
       coalesce(contents_sums.bytes_new, 0) AS bytes_new,
       coalesce(contents_sums.bytes_gone, 0) AS bytes_gone,
       coalesce(bytes_before + bytes_new - bytes_gone, 0) AS bytes_after
FROM on_both
LEFT JOIN image_sums ON image_sums.store = on_both.store
LEFT JOIN layer_sums ON layer_sums.store = on_both.store
LEFT JOIN contents_sums ON contents_sums.store = on_both.store
ORDER BY bytes_new DESC, on_both.store;

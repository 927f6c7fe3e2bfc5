-- What removing names everywhere frees on each store: the images that have none but these names go,
-- and with them the contents that nothing else of the store holds; as `strata rmi --dry-run` there.
-- Asked before:
--   CREATE TEMPORARY VIEW asked_name AS SELECT 'registry.example.org/app:1' AS name;
WITH
-- A pin of a digest is no name that keeps an image.
named AS (
    SELECT names.store, names.image, count(*) AS names,
           sum(CASE WHEN asked_name.name IS NULL THEN 0 ELSE 1 END) AS removed
    FROM names LEFT JOIN asked_name ON asked_name.name = names.name
    WHERE names.name NOT LIKE '%@%'
    GROUP BY names.store, names.image
),
gone AS (SELECT store, image FROM named WHERE removed > 0 AND removed = names),
kept AS (
    SELECT DISTINCT image_layers.store, image_layers.diff_id
    FROM image_layers
    LEFT JOIN gone ON gone.store = image_layers.store AND gone.image = image_layers.image
    WHERE gone.image IS NULL
),
loose AS (
    SELECT layers.store, layers.diff_id FROM layers
    LEFT JOIN image_layers
        ON image_layers.store = layers.store AND image_layers.diff_id = layers.diff_id
    WHERE image_layers.diff_id IS NULL
),
staying AS (SELECT store, diff_id FROM kept UNION SELECT store, diff_id FROM loose),
going AS (
    SELECT DISTINCT image_layers.store, image_layers.diff_id
    FROM image_layers
    JOIN gone ON gone.store = image_layers.store AND gone.image = image_layers.image
    LEFT JOIN staying
        ON staying.store = image_layers.store AND staying.diff_id = image_layers.diff_id
    WHERE staying.diff_id IS NULL
),
by_layer AS (SELECT * FROM layer_groups),
lost AS (
    SELECT DISTINCT going.store, by_layer.content_group, by_layer.files, by_layer.bytes
    FROM going JOIN by_layer ON by_layer.diff_id = going.diff_id
),
found AS (
    SELECT DISTINCT staying.store, by_layer.content_group
    FROM staying JOIN by_layer ON by_layer.diff_id = staying.diff_id
),
freed AS (
    SELECT lost.store, CAST(sum(lost.files) AS BIGINT) AS files, sum(lost.bytes) AS bytes
    FROM lost
    LEFT JOIN found ON found.store = lost.store AND found.content_group = lost.content_group
    WHERE found.content_group IS NULL
    GROUP BY lost.store
)
SELECT hosts.store, hosts.images, coalesce(freed.files, 0) AS files,
       coalesce(freed.bytes, 0) AS bytes
FROM (SELECT store, count(*) AS images FROM gone GROUP BY store) AS hosts
LEFT JOIN freed ON freed.store = hosts.store
ORDER BY bytes DESC, hosts.store;

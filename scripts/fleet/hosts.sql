-- What each store takes, and how much of it others hold too: bytes of its files with nothing shared
-- (apparent), of its distinct contents (stored), and of stored what no other store holds
-- (unique_bytes), what others hold too (shared_bytes); and its part of what one store of all would
-- take, if what some stores hold is divided among them, the remainder going byte by byte to the
-- first of them (attributed).
WITH
uses AS (SELECT DISTINCT store, image, position, diff_id FROM image_layers),
known AS (SELECT diff_id, max(apparent) AS apparent FROM layers GROUP BY diff_id),
sums AS (
    SELECT uses.store, count(DISTINCT uses.image) AS images, sum(known.apparent) AS apparent
    FROM uses JOIN known ON known.diff_id = uses.diff_id GROUP BY uses.store
),
owned AS (
    SELECT DISTINCT layers.store, by_layer.content_group, by_layer.files, by_layer.bytes
    FROM layers JOIN layer_groups AS by_layer ON by_layer.diff_id = layers.diff_id
),
owners AS (
    SELECT content_group, max(bytes) AS bytes, count(*) AS stores,
           array_sort(array_agg(store)) AS holders
    FROM owned GROUP BY content_group
),
parts AS (
    SELECT owned.store, sum(owned.files) AS files, sum(owned.bytes) AS stored,
           sum(CASE WHEN owners.stores = 1 THEN owned.bytes ELSE 0 END) AS unique_bytes
    FROM owned JOIN owners ON owners.content_group = owned.content_group GROUP BY owned.store
),
-- What the same stores hold is one sum; its first group stands for it.
divided AS (
    SELECT min(content_group) AS content_group, max(stores) AS many, sum(bytes) AS bytes
    FROM owners GROUP BY holders
),
charged AS (
    SELECT owned.store, divided.bytes, divided.many,
           row_number() OVER (PARTITION BY divided.content_group ORDER BY owned.store) AS place
    FROM divided JOIN owned ON owned.content_group = divided.content_group
),
attributions AS (
    SELECT store, sum((bytes - bytes % many) / many
                      + CASE WHEN place <= bytes % many THEN 1 ELSE 0 END) AS attributed
    FROM charged GROUP BY store
)
SELECT parts.store, coalesce(sums.images, 0) AS images, CAST(parts.files AS BIGINT) AS files,
       coalesce(sums.apparent, 0) AS apparent, parts.stored, parts.unique_bytes,
       parts.stored - parts.unique_bytes AS shared_bytes,
       CAST(attributions.attributed AS BIGINT) AS attributed
FROM parts
JOIN attributions ON attributions.store = parts.store
LEFT JOIN sums ON sums.store = parts.store
ORDER BY parts.stored DESC, parts.store;

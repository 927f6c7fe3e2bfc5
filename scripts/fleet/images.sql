-- What each image takes, as `strata df` in one store that has all: bytes of its files with nothing
-- shared (apparent), of its distinct contents (stored), and of stored what no other image holds
-- (unique_bytes) and what others hold too (shared_bytes); and its part of what all take, if what
-- some images hold is divided among them, the remainder going byte by byte to the first of them
-- (attributed).
WITH
known AS (SELECT diff_id, max(apparent) AS apparent FROM layers GROUP BY diff_id),
uses AS (SELECT DISTINCT image, position, diff_id FROM image_layers),
by_layer AS (SELECT * FROM layer_groups),
-- A layer that no image has keeps its contents whatever image goes.
loose AS (
    SELECT DISTINCT content_group FROM by_layer
    WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)
),
owned AS (
    SELECT DISTINCT uses.image, by_layer.content_group, by_layer.files, by_layer.bytes
    FROM uses JOIN by_layer ON by_layer.diff_id = uses.diff_id
),
owners AS (SELECT content_group, count(*) AS images FROM owned GROUP BY content_group),
parts AS (
    SELECT owned.image, sum(owned.files) AS files, sum(owned.bytes) AS stored,
           sum(CASE WHEN owners.images = 1 AND loose.content_group IS NULL THEN owned.bytes
                    ELSE 0 END) AS unique_bytes
    FROM owned
    JOIN owners ON owners.content_group = owned.content_group
    LEFT JOIN loose ON loose.content_group = owned.content_group
    GROUP BY owned.image
),
ranked AS (
    SELECT image, row_number() OVER (ORDER BY image) AS place
    FROM (SELECT DISTINCT image FROM uses) AS each_image
),
sets AS (
    SELECT owned.content_group, max(owned.bytes) AS bytes, count(*) AS many,
           array_sort(array_agg(ranked.place)) AS holders
    FROM owned JOIN ranked ON ranked.image = owned.image GROUP BY owned.content_group
),
-- What the same images hold is one sum; its first group stands for it.
divided AS (
    SELECT min(content_group) AS content_group, max(many) AS many, sum(bytes) AS bytes
    FROM sets GROUP BY holders
),
charged AS (
    SELECT owned.image, divided.bytes, divided.many,
           row_number() OVER (PARTITION BY divided.content_group ORDER BY owned.image) AS place
    FROM divided JOIN owned ON owned.content_group = divided.content_group
),
attributions AS (
    SELECT image, sum((bytes - bytes % many) / many
                      + CASE WHEN place <= bytes % many THEN 1 ELSE 0 END) AS attributed
    FROM charged GROUP BY image
),
sums AS (
    SELECT uses.image, sum(known.apparent) AS apparent
    FROM uses JOIN known ON known.diff_id = uses.diff_id GROUP BY uses.image
),
called AS (SELECT image, min(name) AS name FROM names GROUP BY image)
SELECT lower(hex(sums.image)) AS image, called.name,
       CAST(coalesce(parts.files, 0) AS BIGINT) AS files, sums.apparent,
       coalesce(parts.stored, 0) AS stored,
       coalesce(parts.unique_bytes, 0) AS unique_bytes,
       coalesce(parts.stored - parts.unique_bytes, 0) AS shared_bytes,
       CAST(coalesce(attributions.attributed, 0) AS BIGINT) AS attributed
FROM sums
LEFT JOIN parts ON parts.image = sums.image
LEFT JOIN attributions ON attributions.image = sums.image
LEFT JOIN called ON called.image = sums.image
ORDER BY stored DESC, image;

-- The images that are most like one: the bytes of contents that both hold, divided by the bytes
-- that either holds, as `strata reuse IMAGE`. Asked before:
--   CREATE TEMPORARY VIEW asked_image AS SELECT '64 hex digits' AS image;
WITH
uses AS (SELECT DISTINCT image, diff_id FROM image_layers),
owned AS (
    SELECT DISTINCT uses.image, by_layer.content_group, by_layer.files, by_layer.bytes
    FROM uses JOIN layer_groups AS by_layer ON by_layer.diff_id = uses.diff_id
),
own AS (
    SELECT owned.content_group
    FROM owned JOIN asked_image ON lower(hex(owned.image)) = asked_image.image
),
sums AS (
    SELECT owned.image, sum(owned.bytes) AS bytes,
           sum(CASE WHEN own.content_group IS NULL THEN 0 ELSE owned.bytes END) AS both_hold,
           sum(CASE WHEN own.content_group IS NULL THEN 0 ELSE owned.files END) AS files
    FROM owned LEFT JOIN own ON own.content_group = owned.content_group GROUP BY owned.image
),
pairs AS (
    SELECT others.image, others.files, others.both_hold,
           others.bytes + itself.bytes - others.both_hold AS either_holds
    FROM sums AS others
    JOIN sums AS itself ON others.image <> itself.image
    JOIN asked_image ON lower(hex(itself.image)) = asked_image.image
),
called AS (SELECT image, min(name) AS name FROM names GROUP BY image)
SELECT lower(hex(pairs.image)) AS image, called.name, CAST(pairs.files AS BIGINT) AS files,
       pairs.both_hold, pairs.either_holds,
       CASE WHEN pairs.either_holds = 0 THEN 1.0E0
            ELSE CAST(pairs.both_hold AS DOUBLE) / CAST(pairs.either_holds AS DOUBLE)
       END AS similarity
FROM pairs LEFT JOIN called ON called.image = pairs.image
ORDER BY similarity DESC, image
LIMIT 10;

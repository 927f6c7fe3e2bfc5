-- The images that are most like one: the bytes of contents that both hold, divided by the bytes
-- that either holds, as `strata reuse IMAGE`. Asked before:
--   CREATE TEMPORARY VIEW asked_image AS SELECT '64 hex digits' AS image;
WITH
held AS (SELECT DISTINCT diff_id, digest, size FROM entries WHERE digest IS NOT NULL),
owned AS (
    SELECT DISTINCT image_layers.image, held.digest, held.size
    FROM image_layers JOIN held ON held.diff_id = image_layers.diff_id
),
own AS (
    SELECT owned.digest FROM owned JOIN asked_image ON lower(hex(owned.image)) = asked_image.image
),
sums AS (
    SELECT owned.image, sum(owned.size) AS bytes,
           sum(CASE WHEN own.digest IS NULL THEN 0 ELSE owned.size END) AS both_hold,
           count(own.digest) AS files
    FROM owned LEFT JOIN own ON own.digest = owned.digest GROUP BY owned.image
),
pairs AS (
    SELECT others.image, others.files, others.both_hold,
           others.bytes + itself.bytes - others.both_hold AS either_holds
    FROM sums AS others
    JOIN sums AS itself ON others.image <> itself.image
    JOIN asked_image ON lower(hex(itself.image)) = asked_image.image
),
called AS (SELECT image, min(name) AS name FROM names GROUP BY image)
SELECT lower(hex(pairs.image)) AS image, called.name, pairs.files, pairs.both_hold,
       pairs.either_holds,
       CASE WHEN pairs.either_holds = 0 THEN 1.0E0
            ELSE CAST(pairs.both_hold AS DOUBLE) / CAST(pairs.either_holds AS DOUBLE)
       END AS similarity
FROM pairs LEFT JOIN called ON called.image = pairs.image
ORDER BY similarity DESC, image
LIMIT 10;

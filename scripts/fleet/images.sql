-- What each image takes, as `strata df` in one store that has all: bytes of its files with nothing
-- shared (apparent), of its distinct contents (stored), and of stored what no other image holds
-- (unique_bytes) and what others hold too (shared_bytes).
WITH
known AS (SELECT diff_id, max(apparent) AS apparent FROM layers GROUP BY diff_id),
uses AS (SELECT DISTINCT image, position, diff_id FROM image_layers),
held AS (SELECT DISTINCT diff_id, digest, size FROM entries WHERE digest IS NOT NULL),
owned AS (
    SELECT DISTINCT uses.image, held.digest, held.size
    FROM uses JOIN held ON held.diff_id = uses.diff_id
),
owners AS (SELECT digest, count(*) AS images FROM owned GROUP BY digest),
-- A layer that no image has keeps its contents whatever image goes.
loose AS (
    SELECT DISTINCT digest FROM held
    WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)
),
parts AS (
    SELECT owned.image, count(*) AS files, sum(owned.size) AS stored,
           sum(CASE WHEN owners.images = 1 AND loose.digest IS NULL THEN owned.size ELSE 0 END)
               AS unique_bytes
    FROM owned
    JOIN owners ON owners.digest = owned.digest
    LEFT JOIN loose ON loose.digest = owned.digest
    GROUP BY owned.image
),
sums AS (
    SELECT uses.image, sum(known.apparent) AS apparent
    FROM uses JOIN known ON known.diff_id = uses.diff_id GROUP BY uses.image
),
called AS (SELECT image, min(name) AS name FROM names GROUP BY image)
SELECT lower(hex(sums.image)) AS image, called.name, coalesce(parts.files, 0) AS files,
       sums.apparent, coalesce(parts.stored, 0) AS stored,
       coalesce(parts.unique_bytes, 0) AS unique_bytes,
       coalesce(parts.stored - parts.unique_bytes, 0) AS shared_bytes
FROM sums
LEFT JOIN parts ON parts.image = sums.image
LEFT JOIN called ON called.image = sums.image
ORDER BY stored DESC, image;

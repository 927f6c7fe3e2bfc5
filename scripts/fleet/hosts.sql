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
owned AS (SELECT store, digest, max(size) AS size FROM contents GROUP BY store, digest),
owners AS (SELECT digest, count(*) AS stores FROM owned GROUP BY digest),
parts AS (
    SELECT owned.store, count(*) AS files, sum(owned.size) AS stored,
           sum(CASE WHEN owners.stores = 1 THEN owned.size ELSE 0 END) AS unique_bytes
    FROM owned JOIN owners ON owners.digest = owned.digest GROUP BY owned.store
),
sets AS (
    SELECT digest, max(size) AS size, count(*) AS many, array_sort(array_agg(store)) AS holders
    FROM owned GROUP BY digest
),
-- What the same stores hold is one sum; its first content stands for it.
divided AS (
    SELECT min(digest) AS digest, max(many) AS many, sum(size) AS bytes
    FROM sets GROUP BY holders
),
charged AS (
    SELECT owned.store, divided.bytes, divided.many,
           row_number() OVER (PARTITION BY divided.digest ORDER BY owned.store) AS place
    FROM divided JOIN owned ON owned.digest = divided.digest
),
attributions AS (
    SELECT store, sum((bytes - bytes % many) / many
                      + CASE WHEN place <= bytes % many THEN 1 ELSE 0 END) AS attributed
    FROM charged GROUP BY store
)
SELECT parts.store, coalesce(sums.images, 0) AS images, parts.files,
       coalesce(sums.apparent, 0) AS apparent, parts.stored, parts.unique_bytes,
       parts.stored - parts.unique_bytes AS shared_bytes,
       CAST(attributions.attributed AS BIGINT) AS attributed
FROM parts
JOIN attributions ON attributions.store = parts.store
LEFT JOIN sums ON sums.store = parts.store
ORDER BY parts.stored DESC, parts.store;

-- What all images take together: with nothing shared, with layers shared (what overlay2 needs),
-- with files shared (one store for all), and as the stores are now. In bytes of files; the first
-- three are the totals APPARENT, LAYERED and STORED of `strata df` in one store that has all.
WITH
known AS (SELECT diff_id, max(apparent) AS apparent FROM layers GROUP BY diff_id),
uses AS (SELECT DISTINCT image, position, diff_id FROM image_layers),
stacks AS (SELECT DISTINCT chain_id, diff_id FROM image_layers),
loose AS (
    SELECT coalesce(sum(apparent), 0) AS bytes FROM known
    WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)
),
files AS (SELECT digest, max(size) AS size FROM contents GROUP BY digest)
SELECT
    (SELECT count(DISTINCT store) FROM layers) AS stores,
    (SELECT count(DISTINCT image) FROM images) AS images,
    (SELECT count(*) FROM known) AS layers,
    (SELECT count(*) FROM files) AS files,
    (SELECT coalesce(sum(apparent), 0) FROM uses JOIN known ON known.diff_id = uses.diff_id)
        + (SELECT bytes FROM loose) AS nothing_shared,
    (SELECT coalesce(sum(apparent), 0) FROM stacks JOIN known ON known.diff_id = stacks.diff_id)
        + (SELECT bytes FROM loose) AS layers_shared,
    (SELECT coalesce(sum(size), 0) FROM files) AS files_shared,
    (SELECT coalesce(sum(size), 0) FROM contents) AS in_all_stores;

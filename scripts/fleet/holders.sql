-- Which images hold a content or have a path, and in which stores. Asked before:
--   CREATE TEMPORARY VIEW asked AS
--   SELECT '64 hex digits, or nothing' AS digest, '/a/path, or nothing' AS path;
-- An image has a path if one of its layers has, whatever the layers above it do to the path.
WITH
-- A layer is the same in every store, so one store's rows of it are looked at.
one AS (SELECT diff_id, min(store) AS store FROM layers GROUP BY diff_id),
found AS (
    SELECT entries.diff_id, entries.path_text, entries.kind, entries.digest
    FROM entries
    JOIN asked ON entries.digest = unhex(asked.digest) OR entries.path_text = asked.path
    JOIN one ON one.diff_id = entries.diff_id AND one.store = entries.store
)
SELECT image_layers.store, lower(hex(image_layers.image)) AS image, called.name,
       image_layers.position, lower(hex(found.diff_id)) AS diff_id,
       found.path_text, found.kind, lower(hex(found.digest)) AS digest
FROM found
JOIN image_layers ON image_layers.diff_id = found.diff_id
LEFT JOIN (SELECT store, image, min(name) AS name FROM names GROUP BY store, image) AS called
    ON called.image = image_layers.image AND called.store = image_layers.store
ORDER BY image_layers.store, image, image_layers.position, found.path_text;

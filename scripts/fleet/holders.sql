-- Which images hold a content or have a path, and in which stores. Asked before:
--   CREATE TEMPORARY VIEW asked AS
--   SELECT '64 hex digits, or nothing' AS digest, '/a/path, or nothing' AS path;
-- An image has a path if one of its layers has, whatever the layers above it do to the path.
SELECT image_layers.store, lower(hex(image_layers.image)) AS image, called.name,
       image_layers.position, lower(hex(entries.diff_id)) AS diff_id,
       entries.path_text, entries.kind, lower(hex(entries.digest)) AS digest
FROM entries
JOIN asked ON lower(hex(entries.digest)) = asked.digest OR entries.path_text = asked.path
JOIN image_layers
    ON image_layers.diff_id = entries.diff_id AND image_layers.store = entries.store
LEFT JOIN (SELECT store, image, min(name) AS name FROM names GROUP BY store, image) AS called
    ON called.image = image_layers.image AND called.store = image_layers.store
ORDER BY image_layers.store, image, image_layers.position, entries.path_text;

-- All that a job has started and they in turn, that is not final and was not asked to stop; parents come first.
WITH RECURSIVE below AS (
    SELECT child_id, depth FROM job_children WHERE parent_id = %(job_id)s
    UNION ALL
    SELECT c.child_id, c.depth FROM below b JOIN job_children c ON c.parent_id = b.child_id
)
SELECT b.child_id AS job_id, v.app_id
FROM below b JOIN jobs j ON j.id = b.child_id
JOIN app_versions v ON v.id = j.version_id
WHERE j.finished_at IS NULL AND j.cancel_requested_at IS NULL
ORDER BY b.depth, b.child_id LIMIT %(limit)s

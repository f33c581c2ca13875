-- Children that go on though their parent is final or about to stop. What is final itself is settled on the way, so that
-- nobody looks at it again; where another replica looks at the same moment, one of them is enough.
WITH seen AS (
    SELECT c.child_id FROM job_children c JOIN jobs j ON j.id = c.child_id
    WHERE NOT c.is_settled AND j.finished_at IS NOT NULL
    LIMIT 1000 FOR UPDATE OF c SKIP LOCKED
), settled AS (
    UPDATE job_children c SET is_settled = true FROM seen s WHERE c.child_id = s.child_id
)
SELECT c.child_id AS job_id, v.app_id
FROM job_children c JOIN jobs j ON j.id = c.child_id JOIN jobs p ON p.id = c.parent_id
JOIN app_versions v ON v.id = j.version_id
WHERE NOT c.is_settled AND j.finished_at IS NULL AND j.cancel_requested_at IS NULL
  AND (p.finished_at IS NOT NULL OR p.cancel_requested_at IS NOT NULL)
ORDER BY c.depth, c.child_id LIMIT %(limit)s

select regexp_extract(source_uri, '[^/]+$') as document,
       count(*) as pages,
       string_agg(distinct origin, ' + ' order by origin) as read_by,
       sum(length(text)) as characters,
       count(*) filter (rotation <> 0) as turned,
       any_value(left(regexp_replace(text, '\s+', ' ', 'g'), 48) order by page_number) as begins
from pages
group by source_uri
order by document

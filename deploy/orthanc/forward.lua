-- Sends a study to pacs-cbir once no instance of it has arrived for StableAge seconds, if it has a series of MR images.
-- The whole study goes, reports and key objects included, by a job that Orthanc lists and can send again.

function OnStableStudy(studyId, tags, metadata)
  for _, series in ipairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    if series['MainDicomTags']['Modality'] == 'MR' then
      RestApiPost('/modalities/pacs-cbir/store', DumpJson({ Resources = { studyId }, Synchronous = false }))
      return
    end
  end
end

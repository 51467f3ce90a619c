"""Orthanc's plug-in: a button on the page of a study, in Orthanc's own Explorer, that opens it in pacs-cbir."""

import json
import os

import orthanc

URL = os.environ.get("PACS_CBIR_URL", "http://localhost:8000").rstrip("/")

# jQuery Mobile 1.1 makes buttons of what stands there before the page is created.
BUTTON = """
$('#study').live('pagebeforecreate', function() {
  $('#study-delete').closest('ul').before(
    '<a id="study-similar" data-role="button" data-icon="search" data-theme="e"' +
    ' target="_blank" rel="external noopener">Similar studies</a>');
});
function pacsCbirOfStudy() {
  var shown = $.mobile.pageData.uuid;
  if ($.mobile.pageData.active !== 'study') return;
  $('#study-similar').removeAttr('href');
  $.getJSON('../studies/' + shown, function(study) {
    if (shown === $.mobile.pageData.uuid) {
      $('#study-similar').attr('href', %s + '/#study?study=' + study.MainDicomTags.StudyInstanceUID);
    }
  });
}
$('#study').live('pagebeforeshow', pacsCbirOfStudy);
// From one study to another no page is shown anew.
$(window).bind('hashchange', pacsCbirOfStudy);
"""

orthanc.ExtendOrthancExplorer(BUTTON % json.dumps(URL))
